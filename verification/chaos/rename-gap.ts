// A ClickHouse server that is killed just where a plain MergeTree can lose rows: a part's token is in the deduplication
// log, the part itself has not got its name yet. The gap is a tenth of a millisecond; strace, where there is one, makes
// it longer.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, readdirSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ServerProcess } from '../../test/stack/process.js';

const renameTakesMs = 600;
const pollMs = 2;

export const hasStrace = (process.env['PATH'] ?? '').split(delimiter).some((dir) => {
  try {
    accessSync(join(dir, 'strace'), constants.X_OK);
    return true;
  } catch {
    return false;
  }
});

/** Kills the server in the gap of some insert; false when none came in time, and then it still runs. */
export async function killInRenameGap(server: ServerProcess, limitMs: number): Promise<boolean> {
  const calls = 'rename,renameat,renameat2';
  const args = [
    '-f',
    '-qq',
    '-o',
    '/dev/null',
    '-e',
    `trace=${calls}`,
    '-e',
    `inject=${calls}:delay_enter=${renameTakesMs}ms`,
    '-p',
    `${server.pid}`,
  ];
  const strace = spawn('strace', args, { stdio: 'ignore' });
  const ended = once(strace, 'exit');
  const endWithUs = (): void => void strace.kill('SIGKILL');
  process.once('exit', endWithUs);
  try {
    await sleep(500);
    const before = tokenBytes(server.dataDir);
    for (const endMs = performance.now() + limitMs; performance.now() < endMs; await sleep(pollMs)) {
      if (tokenBytes(server.dataDir) <= before) continue;
      await server.kill();
      return true;
    }
    return false;
  } finally {
    strace.kill('SIGTERM');
    await ended;
    process.off('exit', endWithUs);
  }
}

/** Of all tables' logs of tokens: store/<three letters>/<uuid>/deduplication_logs/. */
function tokenBytes(dataDir: string): number {
  const tables = below(join(dataDir, 'store')).flatMap(below);
  const logs = tables.flatMap((table) => below(join(table, 'deduplication_logs')));
  return logs.reduce((sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.size ?? 0), 0);
}

function below(dir: string): string[] {
  try {
    return readdirSync(dir).map((name) => join(dir, name));
  } catch {
    return [];
  }
}
