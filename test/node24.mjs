// npm run test:node24: the tests that need no server, on Node 24. The npm package `node` carries the binary.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const home = fileURLToPath(new URL('../.cache/node24/', import.meta.url));
const node = `${home}node_modules/node/bin/node`;
const root = fileURLToPath(new URL('../', import.meta.url));

if (!existsSync(node)) {
  mkdirSync(home, { recursive: true });
  writeFileSync(`${home}package.json`, '{ "private": true }\n');
  run('npm', ['install', '--no-audit', '--no-fund', 'node@24'], home);
}
run(node, ['--version'], root);
run(node, ['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit'], root);

function run(command, args, cwd) {
  const { status, error } = spawnSync(command, args, { cwd, stdio: 'inherit' });
  if (error !== undefined || status !== 0) process.exit(status ?? 1);
}
