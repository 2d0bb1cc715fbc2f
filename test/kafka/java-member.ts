// A Java consumer of the newer group protocol, in a process of its own.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { onTestFinished, vi } from 'vitest';
import { jars, java } from '../stack/jars.js';

const program = fileURLToPath(new URL('../support/JoinNewProtocol.java', import.meta.url));

export interface JavaMember {
  /** What it printed, newest last. */
  readonly lines: readonly string[];
}

/** Resolves when it was given partitions, or refused. It is ended with the test. */
export async function javaMember(
  brokers: readonly string[],
  group: string,
  topics: readonly string[],
): Promise<JavaMember> {
  const options = [
    '-Xmx128m',
    '-XX:+UseSerialGC',
    '-Dorg.slf4j.simpleLogger.defaultLogLevel=error',
    '-cp',
    join(await jars('kafka'), '*'),
  ];
  const child = spawn(java(), [...options, program, brokers.join(','), group, topics.join(',')], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const lines: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  const ended = once(child, 'close');
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  await vi.waitUntil(() => lines.length > 0, { timeout: 60_000 });
  return { lines };
}
