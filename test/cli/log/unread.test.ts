// A process whose log goes nowhere lives on and ends when it is told to: a pipe nobody reads, a closed one, a full disk.
import { execFileSync, spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, createReadStream, mkdtempSync, openSync, readSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test, vi } from 'vitest';

vi.setConfig({ testTimeout: 120_000 });

const program = fileURLToPath(new URL('../../support/logging-process.ts', import.meta.url));

interface Running {
  readonly child: ChildProcess;
  readonly beats: Interface;
}

function start(stderr: 'pipe' | number): Running {
  const stdio: StdioOptions = ['ignore', 'pipe', stderr];
  const child = spawn(process.execPath, ['--import', 'tsx', program], { stdio });
  onTestFinished(() => void child.kill('SIGKILL'));
  return { child, beats: createInterface(child.stdout!) };
}

/** The event loop goes round so often. One that is held up never gets there, and the test is late. */
async function beats({ beats: lines }: Running, count: number): Promise<void> {
  for (let beat = 0; beat < count; beat++) await once(lines, 'line');
}

async function endsByTerm({ child }: Running): Promise<void> {
  const exit = once(child, 'exit');
  child.kill('SIGTERM');
  expect(await exit).toEqual([42, null]);
}

/** A pipe as a shell makes it, which nobody reads. */
function fifo(): { readonly path: string; readonly reader: number } {
  const path = join(mkdtempSync(join(tmpdir(), 'kafka-clickhouse-fifo-')), 'log');
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  return { path, reader };
}

test('G1: a pipe that nobody reads holds nothing up, neither the work nor the end', async () => {
  const { path, reader } = fifo();
  const writer = openSync(path, 'w');
  const running = start(writer);
  closeSync(writer);
  await beats(running, 50);
  await endsByTerm(running);
  // What it took before it was full is the beginning, whole line after whole line.
  const bytes = Buffer.alloc(65_536);
  const lines = bytes.toString('utf8', 0, readSync(reader, bytes)).split('\n').slice(0, -1);
  expect(lines.map((line) => (JSON.parse(line) as { i: number }).i)).toEqual(lines.map((_, i) => i));
  closeSync(reader);
});

test('G1: when somebody reads at last, the lines that were lost are counted, and what follows is whole', async () => {
  const { path, reader } = fifo();
  const writer = openSync(path, 'w');
  const running = start(writer);
  closeSync(writer);
  await beats(running, 50);
  let lost = 0;
  let seen = 0;
  let last = -1;
  for await (const line of createInterface(createReadStream(path))) {
    const { i, lines, msg } = JSON.parse(line) as { i?: number; lines?: number; msg: string };
    if (msg.startsWith('log lines were lost')) lost += lines!;
    if (i === undefined) continue;
    expect(i).toBeGreaterThan(last);
    last = i;
    seen += 1;
    // Every line is seen or counted as lost, but for those lost after the last count.
    if (lost > 0 && seen + lost <= last + 1) break;
  }
  expect(lost).toBeGreaterThan(0);
  closeSync(reader);
  await endsByTerm(running);
});

test('G1: a socket that nobody reads, as a supervisor gives', async () => {
  const running = start('pipe');
  running.child.stderr!.pause();
  await beats(running, 50);
  await endsByTerm(running);
});

test('G2: a pipe whose reader has gone ends nothing', async () => {
  const running = start('pipe');
  running.child.stderr!.destroy();
  await beats(running, 50);
  await endsByTerm(running);
});

test('G2: a full disk ends nothing', async () => {
  const full = openSync('/dev/full', 'w');
  const running = start(full);
  closeSync(full);
  await beats(running, 50);
  await endsByTerm(running);
});
