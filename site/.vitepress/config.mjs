// How the site looks and what its menu has. Its pages are laid out by build.mjs, beside the API pages that typedoc writes.
import { readdirSync } from 'node:fs';

const pages = new URL('../../.cache/site/', import.meta.url);
const page = (text, link) => ({ text, link });

/** One group for each kind of symbol: `api/<entry>/<kind>/<name>.md`. */
function symbolsOf(entry) {
  return readdirSync(new URL(`api/${entry}/`, pages), { withFileTypes: true })
    .filter((each) => each.isDirectory())
    .map(({ name: kind }) => ({
      text: kind,
      collapsed: true,
      items: readdirSync(new URL(`api/${entry}/${kind}/`, pages))
        .filter((file) => file.endsWith('.md'))
        .map((file) => page(file.slice(0, -3), `/api/${entry}/${kind}/${file.slice(0, -3)}`)),
    }));
}

const api = [
  ['kafka-clickhouse-rx', 'src'],
  ['…/operators', 'operators'],
  ['…/testing', 'src/testing'],
].map(([text, entry]) => ({
  text,
  collapsed: true,
  link: `/api/${entry}/`,
  items: symbolsOf(entry).filter(({ text: kind }) => kind !== 'testing'),
}));

export default {
  title: 'kafka-clickhouse-rx',
  description: 'Kafka into ClickHouse exactly once',
  srcDir: '../.cache/site',
  outDir: '../.cache/docs',
  cacheDir: '../.cache/vitepress',
  cleanUrls: true,
  lastUpdated: false,
  markdown: { math: false },
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    sidebar: [
      { text: 'Start', items: JSON.parse(process.env.SITE_PAGES ?? '[]') },
      { text: 'API', items: api },
    ],
  },
};
