// Brings the jars of a Java server: Maven copies them to lib/<name>-<hash of its pom>, once for each pom.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const run = promisify(execFile);
let queue: Promise<unknown> = Promise.resolve();

/** Resolves to the directory that holds the jars of `<name>.pom.xml`. */
export function jars(name: 'kafka' | 'zookeeper'): Promise<string> {
  // One Maven at a time: two in this process would share its local repository.
  const result = queue.then(() => copyOnce(name));
  queue = result.catch(() => undefined);
  return result;
}

export function java(): string {
  const home = process.env['JAVA_HOME'];
  return home ? join(home, 'bin', 'java') : 'java';
}

/**
 * Makes a directory under lib/ exactly once, whoever else tries at the same time: it is filled under another
 * name and renamed, and whoever comes second throws his own away.
 */
export async function makeOnce(name: string, fill: (dir: string) => Promise<void>): Promise<string> {
  const target = join(HERE, 'lib', name);
  if (existsSync(target)) return target;
  const partial = `${target}.${process.pid}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  try {
    await fill(partial);
    renameSync(partial, target);
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    if (!existsSync(target)) throw error;
  }
  return target;
}

function copyOnce(name: string): Promise<string> {
  const pom = join(HERE, `${name}.pom.xml`);
  const hash = createHash('sha256').update(readFileSync(pom)).digest('hex').slice(0, 12);
  return makeOnce(`${name}-${hash}`, async (dir) => {
    const args = [
      '-q',
      '-B',
      '-f',
      pom,
      'dependency:copy-dependencies',
      '-DincludeScope=runtime',
      `-DoutputDirectory=${dir}`,
    ];
    await run('mvn', args).catch((error: Error & { stdout?: string }) => {
      throw new Error(
        `Maven could not bring ${name}'s jars (Java 17 and Maven are needed): ${error.message}\n${error.stdout ?? ''}`,
      );
    });
  });
}
