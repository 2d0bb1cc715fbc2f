// The lines by which the documents start the program, as they stand there: SIGTERM to what they start drains it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test, vi } from 'vitest';
import { produce } from '../stack/clients.js';
import { events, Place } from './place.js';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** A project that has the package installed, as npm links it. */
function project(): string {
  const dir = mkdtempSync(join(tmpdir(), 'kafka-clickhouse-project-'));
  mkdirSync(join(dir, 'node_modules/.bin'), { recursive: true });
  const main = join(root, 'dist/src/cli/main.js');
  chmodSync(main, 0o755);
  symlinkSync(root, join(dir, 'node_modules/kafka-clickhouse-rx'));
  symlinkSync(main, join(dir, 'node_modules/.bin/kafka-clickhouse-rx'));
  writeFileSync(
    join(dir, 'package.json'),
    JSON.stringify({ name: 'project', private: true, dependencies: { 'kafka-clickhouse-rx': '*' } }),
  );
  return dir;
}

/** Every line in the documents that starts it: `… run CONFIG`. */
const lines = [
  ...readFileSync(join(root, 'docs/configuration.md'), 'utf8').matchAll(/`((?:node_modules|npx)[^`]*\brun CONFIG'?)`/g),
].map(([, line]) => line!);

test('G7: the documents name lines to start it by', () => {
  expect(lines).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/^node_modules\/\.bin\/kafka-clickhouse-rx run/),
      expect.stringMatching(/^npx -c 'exec /),
    ]),
  );
});

test.each(lines)('G7: started as %s it drains on SIGTERM, and leaves nobody behind', async (line) => {
  const place = await Place.make();
  await produce(place.stack.brokers, place.name, events(0, 10));
  const [, command = '', , inner] = /^(\S+)(?: (-c) '([^']*)')?/.exec(line)!;
  const filled = (text: string) => text.replace('CONFIG', place.file);
  const args = inner === undefined ? filled(line).split(' ').slice(1) : ['-c', filled(inner)];
  const child = spawn(command, args, { cwd: project(), stdio: ['ignore', 'ignore', 'pipe'], detached: true });
  const exit = once(child, 'exit');
  onTestFinished(() => {
    try {
      process.kill(-child.pid!, 'SIGKILL');
    } catch {
      // Nobody is left.
    }
  });
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (log += text));
  await vi.waitFor(async () => expect(await place.rows('SELECT count() AS n FROM {table}')).toEqual([{ n: 10 }]), {
    timeout: 120_000,
    interval: 200,
  });
  child.kill('SIGTERM');
  expect(await exit).toEqual([0, null]);
  expect(log).toMatch(/"msg":"stopped"/);
  // Of its process group nobody goes on.
  expect(() => process.kill(-child.pid!, 0)).toThrow(/ESRCH/);
});
