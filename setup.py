"Package metadata comes from `settings.ini`, nbdev's single source of truth."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

root = Path(__file__).parent
ini = ConfigParser(delimiters=['=']); ini.read(root/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], author=cfg['author'],
    url=cfg['git_url'], license='Apache-2.0', license_files=['LICENSE'], python_requires='>='+cfg['min_python'],
    packages=find_packages(include=[cfg['lib_path'], cfg['lib_path']+'.*']),
    package_data={cfg['lib_path']: ['weights/**/*.safetensors', 'weights/**/*.json', 'weights/**/*.md', 'assets/*.js', 'assets/*.css']},
    install_requires=cfg.get('requirements','').split(), extras_require={k: cfg.get(f'{k}_requirements','').split() for k in ('dev', 'data', 'cluster', 'full')},
    long_description=(root/'README.md').read_text(encoding='utf-8') if (root/'README.md').exists() else '', long_description_content_type='text/markdown',
    entry_points={'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"], 'console_scripts': cfg.get('console_scripts','').split()},
    zip_safe=False)
