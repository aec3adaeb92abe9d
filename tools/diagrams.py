"""The diagrams of the pages on Wan, CogVideoX and LTX, as SVG files in nbs/media/.

    python tools/diagrams.py

They are narrow, so that you can read them on a phone, and have a ground of their own, so that you can read them in the
dark theme."""
from html import escape
from pathlib import Path

MEDIA = Path(__file__).resolve().parents[1]/'nbs/media'
ROW, LINE, MARGIN = 76, 17, 14 # pixels: from row to row of boxes, from line to line of text, around the whole
DATA, NETWORK = ('#eef3fb', '#4a6fa5'), ('#fdf1dc', '#a8741a') # fill and stroke of a box
HEAD = '''<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img">
<style>
text {{ font: 13.5px system-ui, "Segoe UI", Roboto, Arial, sans-serif; fill: #1a1a1a; text-anchor: middle }}
.label {{ font-size: 12.5px; fill: #444; text-anchor: start }}</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0 8 4 0 8z" fill="#555"/></marker></defs>
<rect width="{w}" height="{h}" rx="8" fill="#fff"/>'''

class Box:
    "Lines of text in a frame, around a point"
    def __init__(self,
        text: str, # Lines, parted by `|`
        x: float, # Of its middle, pixels
        row: float, # Of its middle, rows from the top
        colours: tuple = DATA, # Fill and stroke
    ):
        self.lines, self.x, self.y, self.colours = text.split('|'), x, MARGIN + 24 + ROW*row, colours
        self.half_w, self.half_h = 4*max(map(len, self.lines)) + 9, LINE*len(self.lines)/2 + 5

    def svg(self):
        "The box as SVG"
        x, y, w, h = self.x, self.y-self.half_h, 2*self.half_w, 2*self.half_h
        fill, stroke = self.colours
        frame = f'<rect x="{x-w/2:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="5" fill="{fill}" stroke="{stroke}"/>'
        top = self.y - LINE*(len(self.lines)-1)/2 + 4.5
        text = [f'<text x="{x:g}" y="{top+LINE*i:g}">{escape(line)}</text>' for i, line in enumerate(self.lines)]
        return [frame, *text]

def arrow(
    a: Box, # From here
    b: Box, # To here
    label: str = '', # Lines beside the arrow, parted by `|`
) -> list: # SVG elements
    "An arrow from box to box: from side to side within a row, else from edge to edge"
    if a.y == b.y:
        side = 1 if b.x > a.x else -1
        start, end = (a.x+side*a.half_w, a.y), (b.x-side*b.half_w, b.y)
    else:
        down = 1 if b.y > a.y else -1
        reach = max(-b.half_w+8, min(b.half_w-8, (a.x-b.x)*.35)) # arrows that come from the left arrive on the left
        start, end = (a.x, a.y+down*a.half_h), (b.x+reach, b.y-down*b.half_h)
    way = f'M{start[0]:g} {start[1]:g} {end[0]:g} {end[1]:g}'
    line = f'<path d="{way}" stroke="#555" fill="none" marker-end="url(#tip)"/>'
    lines = label.split('|') if label else []
    x, y = (start[0]+end[0])/2 + 7, (start[1]+end[1])/2 + 4 - 15*(len(lines)-1)/2
    if abs(end[0]-start[0]) > 40: x, y = x - 7*max(map(len, lines), default=0) - 20, y + 20 # below an arrow that slants
    return [line, *(f'<text class="label" x="{x:g}" y="{y+15*i:g}">{escape(t)}</text>' for i, t in enumerate(lines))]

def diagram(
    boxes: dict, # Name -> the arguments of a `Box`
    arrows: list, # (from, to) or (from, to, label), by name
    width: int = 440, # Pixels
) -> str: # The text of an SVG file
    "Draw boxes and arrows"
    drawn = {name: Box(*told) for name, told in boxes.items()}
    height = max(b.y+b.half_h for b in drawn.values()) + MARGIN
    parts = [line for a, b, *label in arrows for line in arrow(drawn[a], drawn[b], *label)]
    parts += [line for box in drawn.values() for line in box.svg()]
    return '\n'.join([HEAD.format(w=width, h=round(height)), *parts, '</svg>\n'])

def wan():
    "How the image enters the two kinds of Wan"
    a, b, c = 80, 225, 370
    boxes = dict(
        image=('image', b, 0), vae=('VAE', a, 1, NETWORK), grey=('image, then|grey × (F−1)', b, 1),
        clip=('CLIP|(2.1 only)', c, 1, NETWORK), first=('first latent,|timestep 0', a, 2), vae2=('VAE', b, 2, NETWORK),
        mask=('mask 4 +|latents 16', b, 3), small=('transformer|of 5B', a, 4.1, NETWORK),
        large=('transformer|of 14B', b, 4.1, NETWORK), noise=('noised|latents', (a+b)/2, 5.2))
    arrows = [('image', 'vae'), ('image', 'grey'), ('image', 'clip'), ('vae', 'first'), ('grey', 'vae2'),
              ('vae2', 'mask'), ('clip', 'large'), ('first', 'small'), ('mask', 'large'),
              ('noise', 'small'), ('noise', 'large')]
    return diagram(boxes, arrows, 450)

def cogvideox():
    "The way of one pair through CogVideoX"
    a, b = 110, 320
    boxes = dict(
        image=('input image|3 × 1 × H × W', a, 0), video=('transition video|3 × F × H × W', b, 0),
        vae=('VAE encoder', a, 1, NETWORK), vae2=('VAE encoder', b, 1, NETWORK),
        post=('mean and logvar|2·16 × 1 × h × w', a, 2), post2=('mean and logvar|2·16 × F′ × h × w', b, 2),
        zeros=('image, then zeros|16 × F″ × h × w', a, 3.1), clean=('x₀|16 × F″ × h × w', b, 3.1),
        noised=('noised latents', b, 4.1), net=('transformer|32 → 16 channels', (a+b)/2, 5.1, NETWORK),
        loss=('v̂, against √ᾱ ε − √(1−ᾱ) x₀', (a+b)/2, 6.1))
    arrows = [('image', 'vae', '+ σ · noise|(training only)'), ('video', 'vae2'), ('vae', 'post'), ('vae2', 'post2'),
              ('post', 'zeros', 'sample,|× image scale'), ('post2', 'clean', 'sample, × 0.7,|pad in front'),
              ('clean', 'noised', '√ᾱ x₀ + √(1−ᾱ) ε'), ('zeros', 'net'), ('noised', 'net'), ('net', 'loss')]
    return diagram(boxes, arrows)

def ltx():
    "The way of one pair through LTX"
    a, b = 112, 320
    boxes = dict(
        image=('input image|3 × 1 × H × W', a, 0), video=('transition video|3 × F × H × W', b, 0),
        vae=('VAE encoder', a, 1, NETWORK), vae2=('VAE encoder', b, 1, NETWORK),
        latent=('latent of the image|128 × 1 × h × w', a, 2), latents=('latents|128 × F′ × h × w', b, 2),
        noised=('noised latents', b, 3.2), times=('timestep of each token|0 for the first h·w,|else 1000 σ', a, 4.2),
        tokens=('tokens|F′·h·w × 128', b, 4.2), places=('positions,|with the frame rate', a, 5.2),
        net=('transformer', b, 5.2, NETWORK), loss=('v̂, against ε − x₀|on all but the first h·w tokens', b-15, 6.2))
    arrows = [('image', 'vae'), ('video', 'vae2'), ('vae', 'latent', 'sample,|normalise'),
              ('vae2', 'latents', 'sample,|normalise'), ('latents', 'noised', '(1−σ) x₀ + σ ε'),
              ('latent', 'noised', 'replaces|latent 0'), ('noised', 'tokens', 'pack'), ('times', 'net'),
              ('tokens', 'net'), ('places', 'net'), ('net', 'loss')]
    return diagram(boxes, arrows, 450)

if __name__ == '__main__':
    for draw in (wan, cogvideox, ltx): (MEDIA/f'{draw.__name__}.svg').write_text(draw(), encoding='utf-8')
