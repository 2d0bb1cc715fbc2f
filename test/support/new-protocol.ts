// A Java consumer of the newer group protocol (KIP-848), in a process of its own.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { jars, java } from '../stack/jars.js';

const program = fileURLToPath(new URL('JoinNewProtocol.java', import.meta.url));
/** A Java program is compiled and started, on a machine that may be busy. */
const joinsWithinMs = 60_000;

export interface JavaMember {
  /** What it printed, newest last: that it was assigned partitions, or refused. */
  readonly lines: readonly string[];
  /** Ends it without a word to the group; resolves when it has ended. */
  kill(): Promise<void>;
}

/** Resolves when it was given partitions, or refused; rejects when neither comes in a minute. */
export async function joinByNewProtocol(
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
  const endWithUs = (): void => void child.kill('SIGKILL');
  process.once('exit', endWithUs);
  const lines: string[] = [];
  const told = createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  const ended = once(child, 'close').then(() => void process.off('exit', endWithUs));
  const kill = (): Promise<void> => {
    child.kill('SIGKILL');
    return ended;
  };
  try {
    const limit = AbortSignal.timeout(joinsWithinMs);
    await Promise.race([
      once(told, 'line', { signal: limit }),
      ended.then(() => Promise.reject(new Error('it ended'))),
    ]);
  } catch (cause) {
    await kill();
    throw new Error(`a Java consumer did not join ${group} within ${joinsWithinMs / 1000} s`, { cause });
  }
  return { lines, kill };
}
