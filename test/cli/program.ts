// The built program as a process of its own, as a user starts it.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

const main = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
const root = fileURLToPath(new URL('../../', import.meta.url));

/** None of them outlives the tests. */
const running = new Set<ChildProcess>();
process.once('exit', () => running.forEach((child) => child.kill('SIGKILL')));

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class Program {
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';
  readonly #child: ChildProcess;

  constructor(command: readonly string[], env: Readonly<Record<string, string>> = {}, node = process.execPath) {
    const child = spawn(node, command, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    child.stdout.setEncoding('utf8').on('data', (text: string) => (this.stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    this.ended = once(child, 'close').then(([code, signal]) => ({
      code: code as number | null,
      signal: signal as NodeJS.Signals | null,
      stdout: this.stdout,
      stderr: this.stderr,
    }));
    running.add(child);
    // A test that failed leaves nothing behind; SIGKILL ends also what was stopped.
    onTestFinished(() => void child.kill('SIGKILL'));
    child.once('close', () => running.delete(child));
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Polls until `isSo`; fails with what the program said when it ended, or after `limitMs`. */
  async until(isSo: () => boolean | Promise<boolean>, what: string, limitMs = 120_000): Promise<void> {
    const deadline = performance.now() + limitMs;
    while (!(await isSo())) {
      const isOver = this.#child.exitCode !== null || this.#child.signalCode !== null;
      if (isOver || performance.now() > deadline) {
        throw new Error(
          `${isOver ? 'the program ended' : 'time was up'} before ${what}\n${this.stdout}\n${this.stderr}`,
        );
      }
      await sleep(50);
    }
  }
}

/** `kafka-clickhouse-rx` with arguments; on another Node where its path is given. */
export function program(args: readonly string[], env: Readonly<Record<string, string>> = {}, node?: string): Program {
  return new Program([main, ...args], env, node);
}

export function runConfig(
  config: unknown,
  env: Readonly<Record<string, string>> = {},
  args: readonly string[] = [],
): Program {
  return program(['run', configFile(config), ...args], env);
}

/** A configuration in a file of its own. */
export function configFile(config: unknown, name = 'config.json'): string {
  const file = join(mkdtempSync(join(tmpdir(), 'kafka-clickhouse-config-')), name);
  writeFileSync(file, typeof config === 'string' ? config : JSON.stringify(config));
  return file;
}
