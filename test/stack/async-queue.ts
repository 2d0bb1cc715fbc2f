// The queue of asynchronous inserts for a ClickHouse that runs as clickhouse-local, which has none: see async-queue.c.
// Only for the one build that it knows; `clickhouse server` has a queue of its own.
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readSync, renameSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('async-queue.c', import.meta.url));
const BUILD_ID = 'd3d8f5517577ad52775b52318a193784b2fb5317';

/** The compiled library; a sentence where it cannot be used. */
export function asyncQueueLibrary(libchdb: string): { readonly library: string } | { readonly fault: string } {
  if (process.platform !== 'linux' || process.arch !== 'x64') return { fault: 'made for Linux on x64 only' };
  if (!head(libchdb).includes(Buffer.from(BUILD_ID, 'hex'))) return { fault: 'libchdb.so is another build than the one that async-queue.c knows' };
  const library = join(tmpdir(), `kafka-clickhouse-async-queue-${Math.trunc(statSync(SOURCE).mtimeMs)}.so`);
  if (existsSync(library)) return { library };
  const made = `${library}.${process.pid}`;
  try {
    execFileSync('cc', ['-O1', '-shared', '-fPIC', '-o', made, SOURCE, '-lpthread'], { stdio: 'pipe' });
  } catch (error) {
    return { fault: `no C compiler: ${String(error)}` };
  }
  renameSync(made, library);
  return { library };
}

/** Where the linker puts the build's id. */
function head(file: string): Buffer {
  const bytes = Buffer.alloc(4096);
  const open = openSync(file, 'r');
  try {
    readSync(open, bytes);
  } finally {
    closeSync(open);
  }
  return bytes;
}
