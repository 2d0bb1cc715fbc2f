// The head of each source file says what the file imports, by room. `--write` brings it up to date, else it is compared.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const WIDTH = 120;
const generated = /^src\/kernel\/(assembly\/|value-check\.wasm\.ts$)/;

export function sources() {
  return ['src', 'operators']
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((path) => !generated.test(path))
    .sort();
}

/** The rooms that a file imports from: a folder, a file beside the folders, a package, or Node. */
export function importsOf(path, text) {
  const rooms = new Set();
  for (const [, specifier] of text.matchAll(/^(?:import|export)\s[^;]*?from\s+'([^']+)';|^import\s+'([^']+)';/gms))
    if (specifier !== undefined) rooms.add(roomOf(path, specifier));
  rooms.delete(dirname(path).replace(/^src\//, ''));
  return [...rooms].sort();
}

function roomOf(path, specifier) {
  if (specifier.startsWith('node:')) return 'Node';
  if (!specifier.startsWith('.'))
    return specifier
      .split('/')
      .slice(0, specifier.startsWith('@') ? 2 : 1)
      .join('/');
  const target = normalize(join(dirname(path), specifier)).replace(/\.js$/, '');
  const folder = dirname(target);
  return folder === 'src' ? target.slice('src/'.length) : folder.replace(/^src\//, '');
}

export function withHead(path, text) {
  const head = /^(?:#![^\n]*\n)?\/\*\*(.*?)\*\//s.exec(text);
  if (head === null) return text;
  const rooms = importsOf(path, text);
  const said = `Imports: ${rooms.length === 0 ? 'nothing' : rooms.join(', ')}.`;
  const lines = head[1]
    .split('\n')
    .map((line) => line.replace(/^\s*\* ?/, '').trimEnd())
    .join('\n')
    .trim()
    .replace(/\s*\bImports: (?:[^.]|\.(?=\S))*\./g, '')
    .split('\n');
  const wrapped = wrap(said);
  const last = lines.at(-1);
  if (wrapped.length === 1 && `${last} ${said}`.length <= WIDTH - 3 && last !== '' && !/^[|*\-` ]/.test(last))
    lines.splice(-1, 1, `${last} ${said}`);
  else lines.push(...wrapped);
  const start = head[0].startsWith('#!') ? head[0].slice(0, head[0].indexOf('\n') + 1) : '';
  const block = `${start}/**\n${lines.map((line) => ` * ${line}`.trimEnd()).join('\n')}\n */`;
  return block + text.slice(head[0].length);
}

function wrap(text) {
  const lines = [''];
  for (const word of text.split(' ')) {
    const line = `${lines.at(-1)} ${word}`.trim();
    if (line.length <= WIDTH - 3) lines[lines.length - 1] = line;
    else lines.push(word);
  }
  return lines;
}

/** Files whose head says something else than they import, or that have no head. */
export function wrongHeads() {
  return sources().filter((path) => {
    const text = readFileSync(join(root, path), 'utf8');
    return !/^(?:#![^\n]*\n)?\/\*\*/.test(text) || withHead(path, text) !== text;
  });
}

if (process.argv.includes('--write')) {
  for (const path of sources()) {
    const text = readFileSync(join(root, path), 'utf8');
    const written = withHead(path, text);
    if (written !== text) writeFileSync(join(root, path), written);
  }
}
