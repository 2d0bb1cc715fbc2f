// What a ClickHouse that runs as clickhouse-local lacks and `clickhouse server` has, put into the one build of libchdb.so
// that the grafts know: the queue of asynchronous inserts, and the address that replicated tables ask for.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readFileSync, readSync, renameSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export type Graft = 'async-queue' | 'interserver-address';

const BUILD_ID = 'd3d8f5517577ad52775b52318a193784b2fb5317';

const source = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** The compiled graft; a sentence where it cannot be used. */
export function graftFor(libchdb: string, graft: Graft): { readonly library: string } | { readonly fault: string } {
  if (process.platform !== 'linux' || process.arch !== 'x64') return { fault: 'made for Linux on x64 only' };
  if (!head(libchdb).includes(Buffer.from(BUILD_ID, 'hex')))
    return { fault: 'libchdb.so is another build than the one that the grafts know' };
  const file = source(`${graft}.c`);
  const digest = createHash('sha256')
    .update(readFileSync(file))
    .update(readFileSync(source('graft.h')))
    .digest('hex')
    .slice(0, 16);
  const library = join(tmpdir(), `kafka-clickhouse-${graft}-${digest}.so`);
  if (existsSync(library)) return { library };
  const made = `${library}.${process.pid}`;
  try {
    execFileSync('cc', ['-O1', '-Wall', '-shared', '-fPIC', '-o', made, file, '-lpthread'], { stdio: 'pipe' });
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
