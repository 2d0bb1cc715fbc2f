// npm run docs: the documents and the API as a site, in .cache/docs. A symbol without a doc comment, a link or an anchor
// that leads nowhere fails it.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, posix, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { schemaPage } from './schema-page.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const pages = join(root, '.cache/site');
const built = join(root, '.cache/docs');
const { repository } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const repositoryUrl = repository.url.replace(/^git\+|\.git$/g, '');

function run(command, args, env = {}) {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  if (status !== 0) process.exit(status ?? 1);
}

/** What is a page, and where: the README is the first one. Everything else that is linked to stands in the repository. */
const order = ['quick-start.md', 'configuration.md', 'guarantees.md', 'operations.md', 'errors.md', 'embedding.md'];
const others = readdirSync(join(root, 'docs')).filter((name) => !order.includes(name));
const documents = ['README.md', ...[...order, ...others].map((name) => `docs/${name}`), 'CHANGELOG.md'];
const placeOf = (path) =>
  path === 'README.md' ? 'index.md' : path === 'CHANGELOG.md' ? 'changelog.md' : path.slice(5);

function toSite(path, text) {
  const link = (whole, before, target, anchor = '') => {
    if (/^[a-z]+:/.test(target)) return whole;
    const file = posix.join(posix.dirname(path), target);
    if (documents.includes(file)) return `${before}(${posix.join('/', placeOf(file))}${anchor})`;
    if (/\.(png|svg)$/.test(file)) return `${before}(${posix.join('/', posix.basename(file))})`;
    return `${before}(${repositoryUrl}/blob/main/${file}${anchor})`;
  };
  return text.replace(/(!?\[(?:[^[\]]|\[[^\]]*\])*\])\(([^)#\s]+)(#[^)\s]*)?\)/g, link);
}

rmSync(pages, { recursive: true, force: true });
mkdirSync(join(pages, 'public'), { recursive: true });
for (const path of documents) {
  const source = join(root, path);
  if (!path.endsWith('.md')) cpSync(source, join(pages, 'public', posix.basename(path)));
  else writeFileSync(join(pages, placeOf(path)), toSite(path, readFileSync(source, 'utf8')));
}
const schema = JSON.parse(readFileSync(join(root, 'config.schema.json'), 'utf8'));
writeFileSync(join(pages, 'all-keys.md'), schemaPage(schema));
cpSync(join(root, 'bench/chart.svg'), join(pages, 'public/chart.svg'));

run('npx', ['typedoc', '--options', 'site/typedoc.json']);

const titleOf = (file) => /^# (.+)$/m.exec(readFileSync(join(pages, file), 'utf8'))?.[1] ?? file;
const menu = documents
  .filter((path) => path.endsWith('.md'))
  .map(placeOf)
  .flatMap((file) => (file === 'configuration.md' ? [file, 'all-keys.md'] : [file]))
  .map((file) => ({ text: titleOf(file), link: `/${file.replace(/(index)?\.md$/, '')}` }));
run('npx', ['vitepress', 'build', 'site'], { SITE_PAGES: JSON.stringify(menu) });

/** VitePress looks for pages that are missing, not for anchors. */
function* htmlFiles(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* htmlFiles(path);
    else if (entry.name.endsWith('.html')) yield path;
  }
}

const texts = new Map([...htmlFiles(built)].map((path) => [path, readFileSync(path, 'utf8')]));
const dead = [...texts].flatMap(([path, text]) =>
  [...text.matchAll(/<a[^>]* href="([^"#:]*)#([^"]+)"/g)].flatMap(([, target, anchor]) => {
    const folder = target.startsWith('/') ? built : dirname(path);
    const page = target === '' ? path : resolve(folder, target.replace(/^\//, ''));
    const found = [page, `${page}.html`, join(page, 'index.html')].map((each) => texts.get(each)).find(Boolean);
    const id = decodeURIComponent(anchor);
    return found?.includes(`id="${id}"`) === true ? [] : [`${relative(built, path)}: ${target}#${anchor}`];
  }),
);
if (dead.length > 0) {
  console.error(`Links that lead nowhere:\n  ${[...new Set(dead)].join('\n  ')}`);
  process.exit(1);
}
console.log(`${texts.size} pages in ${relative(root, built)}`);
