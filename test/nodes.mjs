// npm run test:nodes: on Node 20, 22 and 24, or on those that are given (`npm run test:nodes -- 24`): the program with real
// servers, without a warning; then the tests that need no server. The npm package `node` carries the binaries.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const given = process.argv.slice(2).filter((each) => /^\d+$/.test(each));
const versions = given.length === 0 ? ['20', '22', '24'] : given;
const isProgramOnly = process.argv.includes('--program-only');

const binaries = versions.map((version) => {
  const home = `${root}.cache/node${version}/`;
  const node = `${home}node_modules/node/bin/node`;
  if (!existsSync(node)) {
    mkdirSync(home, { recursive: true });
    writeFileSync(`${home}package.json`, '{ "private": true }\n');
    run('npm', ['install', '--no-audit', '--no-fund', `node@${version}`], home);
  }
  run(node, ['--version'], root);
  return node;
});

run('npm', ['run', '--silent', 'build'], root);
run(
  process.execPath,
  ['node_modules/vitest/vitest.mjs', 'run', '--project', 'servers', 'test/cli/node-versions.servers.test.ts'],
  root,
  { NODE_BINARIES: binaries.join(',') },
);
if (!isProgramOnly)
  for (const node of binaries)
    run(node, ['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit', '--project', 'long'], root);

function run(command, args, cwd, env = {}) {
  const { status, error } = spawnSync(command, args, { cwd, stdio: 'inherit', env: { ...process.env, ...env } });
  if (error !== undefined || status !== 0) process.exit(status ?? 1);
}
