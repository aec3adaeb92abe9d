"Print pins.txt: the installed version of every package that the project and its tests need, as pip constraints."
import re, sys
from importlib.metadata import PackageNotFoundError, distribution
from packaging.requirements import Requirement

name = lambda s: re.sub(r'[-_.]+', '-', s).lower()

def needed(project='gen2gen', extra='dev'):
    "Installed distributions that `project[extra]` leads to, by normal name"
    found, queue = {}, [(project, {extra})]
    while queue:
        pkg, extras = queue.pop()
        try: dist = distribution(pkg)
        except PackageNotFoundError: continue
        known = found.setdefault(name(pkg), (dist, set()))[1]
        if known >= extras | {''}: continue
        known |= extras | {''}
        for r in map(Requirement, dist.requires or []):
            if r.marker is None or any(r.marker.evaluate({'extra': e}) for e in known): queue.append((r.name, set(r.extras)))
    del found[name(project)]
    return {k: d for k, (d, _) in sorted(found.items())}

def pin(key, dist):
    "One constraint; Python 3.10 gets the newest releases that still support it, which are not these"
    return f'{key}==' + dist.version.split('+')[0] + ('' if key == 'torch' else ' ; python_version >= "3.11"')

if __name__ == '__main__':
    print(f'# The versions that the tests ran with, on Python {sys.version_info[0]}.{sys.version_info[1]}; written by `make pins`.')
    print('\n'.join(pin(k, d) for k, d in needed().items() if k not in ('pip', 'setuptools')))
