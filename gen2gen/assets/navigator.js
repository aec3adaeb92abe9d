// Walking through ARC tasks. Before it stand player.js and what gen2gen.navigator writes:
// PALETTE, ten colours, and PROBLEMS.

const byId = (id) => document.getElementById(id);
const cellsOf = (text) => text.split(' ').map((row) => [...row].map(Number));

// A grid on a canvas, sharp at any size; its longer side has at most `size` pixels, or two a cell.
const drawGrid = (text, size) => {
  const cells = cellsOf(text);
  const [rows, columns] = [cells.length, cells[0].length];
  const side = Math.max(2, Math.floor(size / Math.max(rows, columns)));
  const canvas = element('canvas', { width: columns * side + 1, height: rows * side + 1 });
  const context = canvas.getContext('2d');
  context.fillStyle = '#555'; // what stays of it are the lines between the cells
  context.fillRect(0, 0, canvas.width, canvas.height);
  cells.forEach((row, i) =>
    row.forEach((colour, j) => {
      context.fillStyle = PALETTE[colour];
      context.fillRect(j * side + 1, i * side + 1, side - 1, side - 1);
    }),
  );
  return canvas;
};

// A picture that is a button: for the mouse, for the keyboard, and for a screen reader.
const pressable = (picture, label, press) => {
  Object.assign(picture, { tabIndex: 0, role: 'button', ariaLabel: label, onclick: press });
  picture.onkeydown = (event) => {
    if (event.key !== 'Enter' && event.key !== ' ') return;
    event.preventDefault();
    press();
  };
  return picture;
};

const figure = (head, picture) =>
  element('figure', {}, element('figcaption', { className: 'g2g-head', textContent: head }), picture);

const big = enlarger(byId('big'), () => byId('big').querySelector('canvas').remove());
const enlarge = (text) => {
  const room = Math.min(innerWidth, innerHeight, 0.8 * screen.availHeight); // a frame may be higher
  big.open(drawGrid(text, 0.85 * room));
};

const gridFigure = (text, size, name, head = name) => {
  const cells = cellsOf(text);
  const label = `${name}, ${cells.length} by ${cells[0].length} cells, enlarge`;
  return figure(
    head,
    pressable(drawGrid(text, size), label, () => enlarge(text)),
  );
};

// The frames of a video lie side by side in one picture; a click plays them again.
let clock = null;
const videoFigure = ({ video, frames }) => {
  const sheet = element('img', { src: video });
  const canvas = element('canvas', { className: 'video' });
  const context = canvas.getContext('2d');
  const show = (frame) => {
    const width = sheet.naturalWidth / frames;
    const tile = [frame * width, 0, width, sheet.naturalHeight];
    context.imageSmoothingEnabled = false; // a canvas forgets it when its size is set
    context.drawImage(sheet, ...tile, 0, 0, canvas.width, canvas.height);
    canvas.dataset.frame = frame;
  };
  const own = frameClock(2, () => frames - 1, show);
  clock = own;
  sheet.onload = () => {
    if (clock !== own) return; // by now another problem is shown
    const factor = Math.max(1, Math.floor((150 * frames) / sheet.naturalWidth));
    canvas.width = (factor * sheet.naturalWidth) / frames;
    canvas.height = factor * sheet.naturalHeight;
    own.play();
  };
  return figure('video (click: again)', pressable(canvas, 'generated video, play again', own.play));
};

// Right or wrong in a sign as well as in a colour; null: there is no truth to compare with.
const mark = (right) => {
  if (right === null) return element('span', { className: 'mark', textContent: '–' });
  const [className, textContent] = right ? ['mark right', '✓ right'] : ['mark wrong', '✗ wrong'];
  return element('span', { className, textContent });
};

let place = 0;
let attempt = 0;

const choose = (newPlace, newAttempt = 0) => {
  place = newPlace;
  attempt = newAttempt;
  draw();
};
const go = (step) => choose(goRound(place, step, PROBLEMS.length));

const demonstration = ([input, output], i) =>
  element(
    'div',
    { className: 'pair' },
    gridFigure(input, 110, `input of demonstration ${i + 1}`, 'input'),
    '→',
    gridFigure(output, 110, `output of demonstration ${i + 1}`, 'output'),
  );

// Attempts are counted anew for each model, where there are several.
const sameModel = (answer) => PROBLEMS[place].tries.filter((other) => other.of === answer.of);
const attemptName = (answer) => {
  const number = `attempt ${sameModel(answer).indexOf(answer) + 1} `;
  return answer.of ? `${answer.of}: ${number}` : number;
};

const attemptButton = (answer, i) =>
  element(
    'button',
    { ariaPressed: String(i === attempt), onclick: () => choose(place, i) },
    element('span', {}, attemptName(answer), mark(answer.right)),
  );

const drawTest = (problem) => {
  const answer = problem.tries[attempt];
  const figures = [gridFigure(problem.input, 150, 'test input')];
  figures.push(answer ? gridFigure(answer.grid, 150, 'prediction') : element('span', {}, 'not run'));
  if (problem.truth) figures.push(gridFigure(problem.truth, 150, 'truth'));
  if (answer?.video) figures.push(videoFigure(answer));
  byId('test').replaceChildren(...figures);
};

const concepts = [...new Set(PROBLEMS.map((problem) => problem.concept))].filter(Boolean);

const draw = () => {
  const problem = PROBLEMS[place];
  const concept = problem.concept ? `${problem.concept} · ` : '';
  const known = problem.tries.length && problem.truth;
  const solved = known ? sameModel(problem.tries[0]).some((answer) => answer.right) : null;
  clock?.stop();
  clock = null;
  byId('title').replaceChildren(`${concept}${problem.name}, test ${problem.test + 1} `, mark(solved));
  byId('at').textContent = `${place + 1} / ${PROBLEMS.length}`;
  byId('demos').replaceChildren(...problem.demos.map(demonstration));
  byId('how').textContent = problem.reading ? `Test (answers read by: ${problem.reading})` : 'Test';
  byId('tries').replaceChildren(...problem.tries.map(attemptButton));
  drawTest(problem);
  drawDots(byId('dots'), concepts, problem.concept, (name) =>
    choose(PROBLEMS.findIndex((other) => other.concept === name)),
  );
};

// In a frame on another page this page takes the height that it needs, so that nothing is cut off.
const fitFrame = () => {
  const frame = window.frameElement; // null where there is none, or where the other page is a stranger's
  const needed = document.documentElement.scrollHeight;
  if (!frame || needed <= frame.clientHeight) return;
  const border = frame.offsetHeight - frame.clientHeight;
  frame.style.height = `${needed + border}px`;
};
new ResizeObserver(fitFrame).observe(document.body);

byId('prev').onclick = () => go(-1);
byId('next').onclick = () => go(1);
byId('big').onclick = big.close; // a click anywhere, on the grid as well
document.onkeydown = (event) => {
  if (byId('big').open) return; // the page below stays where it is
  if (arrowStep(event)) go(arrowStep(event));
  else if (/^[1-9]$/.test(event.key) && PROBLEMS[place].tries[event.key - 1]) choose(place, event.key - 1);
};
draw();
