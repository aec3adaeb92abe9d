// Leafing through generated videos, without Python behind the page.
// The first part is what every player needs; navigator.js stands on it. The second part is the gallery.
// The page puts all of it into one block, so that nothing here gets a global name.

// A new element with these properties and children.
const element = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};

// The place `step` further on in a list that has no end.
const goRound = (place, step, length) => (place + step + length) % length;

// -1 and 1 for the arrow keys, 0 for every other key.
const arrowStep = (event) => ({ ArrowLeft: -1, ArrowRight: 1 })[event.key] ?? 0;

// Counts frames from the first to the last and stops there; `show` draws one.
const frameClock = (framesPerSecond, lastFrame, show) => {
  let timer = null;
  let frame = 0;
  const stop = () => clearInterval(timer);
  const tick = () => {
    if (frame < lastFrame()) show(++frame);
    else stop();
  };
  const play = () => {
    stop();
    frame = 0;
    show(frame);
    timer = setInterval(tick, 1000 / framesPerSecond);
  };
  return { play, stop };
};

// A round button for each name. They are drawn anew at each choice; the keyboard's focus stays in its place.
const drawDots = (row, names, chosen, choose) => {
  const focused = [...row.children].indexOf(document.activeElement);
  const dot = (name) =>
    element('button', {
      title: name,
      ariaLabel: name,
      ariaPressed: String(name === chosen),
      onclick: () => choose(name),
    });
  row.replaceChildren(...names.map(dot));
  row.children[focused]?.focus();
};

// Shows something large in a dialog. Escape and a click beside it close, and `putBack` takes it out again.
const enlarger = (dialog, putBack) => {
  const open = (content) => {
    dialog.append(content);
    dialog.showModal();
  };
  const close = () => {
    if (!dialog.open) return;
    putBack();
    dialog.close();
  };
  dialog.oncancel = (event) => {
    event.preventDefault();
    close();
  };
  dialog.onclick = (event) => {
    if (event.target === dialog) close();
  };
  return { open, close };
};

// The gallery. Items are inputs, each with one or several answers (variants); Python has written their HTML.
class Gallery {
  constructor(root) {
    const find = (selector) => root.querySelector(selector);
    this.root = root;
    this.items = [...root.querySelectorAll('.g2g-item')];
    this.taskList = find('.g2g-task');
    this.range = find('.g2g-range');
    this.frameText = find('.g2g-count');
    this.compareButton = find('.g2g-mode');
    this.dots = find('.g2g-dots');
    this.thumbs = find('.g2g-thumbs');
    this.title = find('.g2g-title');
    this.placeText = find('.g2g-place');
    this.stage = find('.g2g-stage');
    this.dialog = find('dialog');

    this.item = this.items[0];
    this.variantName = ''; // kept from item to item, as far as the next one has it
    this.clock = frameClock(
      +root.dataset.fps,
      () => this.lastFrame,
      (frame) => this.showFrame(frame),
    );
    this.large = enlarger(this.dialog, () => this.thumbs.before(this.stage));

    this.listen(find);
    this.listenToPointer();
    this.drawThumbs();
    this.draw();
  }

  // What is chosen

  get listed() {
    const task = this.taskList.value;
    return this.items.filter((item) => !task || item.dataset.task === task);
  }

  get variants() {
    return [...this.item.querySelectorAll('.g2g-variant')];
  }

  get variant() {
    return this.variants.find((variant) => variant.dataset.variant === this.variantName) ?? this.variants[0];
  }

  get lastFrame() {
    return this.variant.dataset.frames - 1;
  }

  get comparing() {
    return this.root.classList.contains('g2g-compare');
  }

  // What is seen

  showFrame(frame) {
    this.root.style.setProperty('--f', frame);
    if (!this.comparing) this.range.value = frame;
    const text = `frame ${frame + 1} of ${this.lastFrame + 1}`;
    this.frameText.textContent = this.comparing ? 'input | answer' : text;
  }

  // The input covers the answer up to this share of its width, in percent.
  moveEdge(share) {
    this.range.value = share;
    this.root.style.setProperty('--x', `${this.range.value}%`);
  }

  // In comparison the slider moves the edge, otherwise the frame.
  compare(on) {
    this.clock.stop();
    this.root.classList.toggle('g2g-compare', on);
    this.compareButton.ariaPressed = String(on);
    this.range.max = on ? 100 : this.lastFrame;
    this.range.ariaLabel = on ? 'edge between input and answer' : 'frame';
    this.showFrame(this.lastFrame);
    if (on) this.moveEdge(50);
  }

  draw() {
    const { listed, variants, variant, item } = this;
    for (const other of this.items) other.hidden = other !== item;
    for (const other of variants) other.hidden = other !== variant;
    const names = variants.length < 2 ? [] : variants.map((other) => other.dataset.variant);
    drawDots(this.dots, names, variant.dataset.variant, (name) => {
      this.variantName = name;
      this.draw();
    });
    const words = [item.dataset.task, item.dataset.name, variant.dataset.variant];
    this.title.textContent = words.filter(Boolean).join(' · ');
    this.placeText.textContent = `${listed.indexOf(item) + 1} of ${listed.length}`;
    this.markThumb(listed.indexOf(item));
    this.compare(this.comparing);
  }

  // Small pictures of all listed items, each the last frame of its first answer.
  drawThumbs() {
    const { listed } = this;
    const thumb = (item) => {
      const first = item.querySelector('.g2g-variant');
      const title = [item.dataset.task, item.dataset.name].filter(Boolean).join(' · ');
      const button = element('button', { title, onclick: () => this.goTo(item) });
      button.style.setProperty('--f', first.dataset.frames - 1);
      button.append(first.querySelector('.g2g-sheet').cloneNode());
      return button;
    };
    this.thumbs.hidden = listed.length < 2;
    this.thumbs.replaceChildren(...listed.map(thumb));
  }

  // Marks one of them and scrolls it to the middle of the row.
  markThumb(place) {
    [...this.thumbs.children].forEach((button, i) => button.toggleAttribute('aria-current', i === place));
    const current = this.thumbs.children[place];
    this.thumbs.scrollLeft = current.offsetLeft - (this.thumbs.clientWidth - current.offsetWidth) / 2;
  }

  // Moves

  goTo(item) {
    this.item = item;
    this.draw();
    if (!this.comparing) this.clock.play();
  }

  go(step) {
    const { listed } = this;
    this.goTo(listed[goRound(listed.indexOf(this.item), step, listed.length)]);
  }

  replay() {
    this.compare(false);
    this.clock.play();
  }

  chooseTask() {
    this.item = this.listed[0];
    this.drawThumbs();
    this.draw();
  }

  slide() {
    this.clock.stop();
    if (this.comparing) this.moveEdge(this.range.value);
    else this.showFrame(+this.range.value);
  }

  listen(find) {
    this.taskList.onchange = () => this.chooseTask();
    this.range.oninput = () => this.slide();
    this.compareButton.onclick = () => this.compare(!this.comparing);
    find('.g2g-back').onclick = () => this.go(-1);
    find('.g2g-next').onclick = () => this.go(1);
    find('.g2g-play').onclick = () => this.replay();
    find('.g2g-close').onclick = () => this.large.close();
    this.root.addEventListener('keydown', (event) => {
      const step = arrowStep(event);
      if (!step || event.target.closest('input, select')) return; // these have arrows of their own
      event.preventDefault();
      event.stopPropagation();
      this.go(step);
    });
  }

  // A swipe goes on, a drag in comparison moves the edge, a click enlarges.
  listenToPointer() {
    const { root } = this;
    const pictureOf = (event) => event.target.closest('.g2g-video .g2g-frame');
    let startX = null; // null: the pointer went down elsewhere
    let dragged = null; // the picture whose edge is moved
    let moved = false; // then the click that follows is none

    root.addEventListener('pointerdown', (event) => {
      startX = event.target.closest('.g2g-variant') ? event.clientX : null;
      dragged = this.comparing ? pictureOf(event) : null;
      moved = false;
    });
    root.addEventListener('pointermove', (event) => {
      if (!dragged || !event.buttons) return;
      if (!moved && Math.abs(event.clientX - startX) < 4) return; // a hand trembles
      moved = true;
      const box = dragged.getBoundingClientRect();
      this.moveEdge((100 * (event.clientX - box.left)) / box.width);
    });
    root.addEventListener('pointerup', (event) => {
      if (startX === null) return;
      const distance = event.clientX - startX;
      const swiped = !dragged && Math.abs(distance) > 40;
      startX = dragged = null;
      moved ||= swiped;
      if (swiped) this.go(distance < 0 ? 1 : -1);
    });
    root.addEventListener('dragstart', (event) => event.preventDefault()); // of the picture itself
    root.addEventListener('click', (event) => {
      if (pictureOf(event) && !moved && !this.dialog.open) this.large.open(this.stage);
    });
  }
}

// A page may hold several galleries, and this script once for each of them.
for (const root of document.querySelectorAll('.g2g-viewer:not([data-ready])')) {
  root.dataset.ready = '1';
  new Gallery(root);
}
