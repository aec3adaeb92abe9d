"Package metadata comes from `settings.ini`, nbdev's single source of truth."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

root = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
name = cfg['lib_path']
readme = root/'README.md'

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    author=cfg['author'],
    url=cfg['git_url'],
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=' + cfg['min_python'],
    packages=find_packages(include=[name, f'{name}.*']),
    package_data={name: [*(f'weights/**/*.{ext}' for ext in ('safetensors', 'json', 'md')),
                         *(f'assets/*.{ext}' for ext in ('js', 'css'))]},
    install_requires=cfg['requirements'].split(),
    extras_require={extra: cfg[f'{extra}_requirements'].split() for extra in ('dev', 'data', 'cluster', 'full')},
    entry_points={'nbdev': [f'{name}={name}._modidx:d'], 'console_scripts': cfg['console_scripts'].split()},
    zip_safe=False,
)
