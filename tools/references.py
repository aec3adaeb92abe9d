"Numbers of figures, cross-references and citations: the part of Quarto's Markdown that smalldocs does not know."
import re
from pathlib import Path
from notebook_filter import CODE

KINDS = dict(fig='Figure', tbl='Table', eq='Equation')

def prose(
    fn, # str -> str
    text: str, # Markdown
) -> str: # Markdown in which `fn` saw everything but code
    "Apply `fn` to Markdown outside code blocks and code spans"
    parts, last = [], 0
    for m in CODE.finditer(text):
        parts += [fn(text[last:m.start()]), m[0]]
        last = m.end()
    return ''.join([*parts, fn(text[last:])])

def numbers(
    body: str, # A page's Markdown
) -> dict: # Label, such as `fig-dot` -> its number, counted for each kind from 1
    "Number the labels of a page in the order in which they stand"
    count, found = {}, {}
    for m in re.finditer(r'\{[^{}\n]*#((fig|tbl|eq)-[\w-]+)[^{}\n]*\}', CODE.sub('', body)):
        if m[1] in found: raise ValueError(f'the label {m[1]} stands twice on this page')
        found[m[1]] = count[m[2]] = count.get(m[2], 0) + 1
    return found

CAPTIONED = [
    # a cell's output, a picture, a table
    r'(?P<before>\{\.cell #(?P<label>(?:fig|tbl)-[\w-]+)\}(?:(?!\{\.cell ).)*?<(?:fig)?caption>)(?P<after>)',
    r'(?P<before>!\[)(?P<after>[^\]]*\]\([^)]*\)\{[^}]*#(?P<label>fig-[\w-]+))',
    r'(?m:^)(?P<before>: +)(?P<after>[^\n]*\{#(?P<label>tbl-[\w-]+)\})',
]

def labelled(
    body: str, # A page's Markdown
    number: dict, # From `numbers`; labels inside code have none
) -> str: # Markdown with numbers before captions and beside formulas
    "Write each number where a reader looks for it"
    def caption(m):
        label = m['label']
        if label not in number: return m[0]
        return f'{m["before"]}{KINDS[label.split("-")[0]]} {number[label]}: {m["after"]}'
    def equation(m):
        if m[2] not in number: return m[0]
        return f'::: {{#{m[2]} .equation}}\n$${m[1]}$$\n\n[({number[m[2]]})]{{.equation-number}}\n:::'
    for pattern in CAPTIONED: body = re.sub(pattern, caption, body, flags=re.S)
    return re.sub(r'\$\$([^$]+)\$\$[ \t]*\{#(eq-[\w-]+)\}', equation, body)

def crossref(
    body: str, # A page's Markdown; ValueError for a reference to nothing, which Quarto would publish as `?@fig-name`
) -> str: # Markdown with numbers in captions and links in place of `@fig-…`, `@tbl-…`, `@eq-…`
    "Resolve a page's cross-references"
    number = numbers(body)
    def link(m):
        if m[1] not in number: raise ValueError(f'@{m[1]} refers to a label that is not on this page')
        return f'[{KINDS[m[2]]}\u00a0{number[m[1]]}](#{m[1]})'
    def links(text): return re.sub(r'(?<![\w\[])@((fig|tbl|eq)-[\w-]+)', link, text)
    return prose(links, labelled(body, number))

def read_bib(
    path: Path, # A BibTeX file; values in braces
) -> dict: # key -> fields, in lower case
    "Read a regular BibTeX file"
    fields = re.compile(r'(\w+)\s*=\s*\{((?:[^{}]|\{[^{}]*\})*)\}')
    entries = re.finditer(r'@\w+\{([^,\s]+),(.*?)\n\}', Path(path).read_text(encoding='utf-8'), re.S)
    return {m[1]: {k.lower(): re.sub('[{}]', '', v) for k, v in fields.findall(m[2])} for m in entries}

def who(
    entry: dict, # Fields of a BibTeX entry
) -> str: # "Li and He", "Lipman et al."
    "The authors of a work, as a citation names them: Quarto's default style does the same"
    names = [author.split(',')[0].strip() for author in entry['author'].split(' and ')]
    if len(names) == 1: return names[0]
    return ' and '.join(names) if len(names) == 2 and names[1] != 'others' else f'{names[0]} et al.'

def dated(
    works: dict, # Cited works, key -> fields
) -> dict: # key -> "2025", or "2025a" and "2025b" for works of the same authors and year
    "The year of each work, as a citation gives it"
    name = {k: (who(e), e['year']) for k, e in sorted(works.items())}
    alike = {k: [o for o in name if name[o] == name[k]] for k in name}
    return {k: year + ('abcdefgh'[alike[k].index(k)] if len(alike[k]) > 1 else '') for k, (_, year) in name.items()}

def entry_of(
    key: str, # Of the work
    entry: dict, # Fields of its BibTeX entry
    year: str, # As a citation gives it
) -> str: # Markdown
    "One work in the list at the end of a page"
    authors = entry['author'].replace(' and ', '; ')
    return f'::: {{#ref-{key}}}\n{authors}. {year}. *{entry["title"]}*. <{entry["url"]}>\n:::'

def cite(
    body: str, # Markdown; ValueError for `[@key]` with an unknown key
    bib: dict, # From `read_bib`
    listed: bool = True, # Link to a list of references at the end, or else to the works themselves
) -> str: # Markdown
    "Resolve citations as author and year"
    used = {} # a year can be written when all citations are known: until then \0key\0 stands for it
    def link(key, form):
        if key not in bib: raise ValueError(f'[@{key}] is not in references.bib')
        used[key] = bib[key]
        return f'[{form.format(who(bib[key]), chr(0) + key + chr(0))}]({"#ref-" + key if listed else bib[key]["url"]})'
    def many(m): return '(' + '; '.join(link(k, '{} {}') for k in re.findall(r'@([\w:-]+)', m[1])) + ')'
    def one(m): return link(m[1], '{} ({})') if m[1] in bib else m[0]
    def links(text): return re.sub(r'(?<![\w@/])@([\w:-]+)', one, re.sub(r'\[(@[^\]]+)\](?!\()', many, text))
    body = prose(links, body)
    year = dated(used)
    body = re.sub('\0(.+?)\0', lambda m: year[m[1]], body)
    if not (used and listed): return body
    return '\n\n'.join([body, '## References {.unnumbered}', *(entry_of(k, e, year[k]) for k, e in used.items())])
