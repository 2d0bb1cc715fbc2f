// Imports: nothing. What one process sends to Kafka, and how long its event loop stands still.
import { readFileSync } from 'node:fs';
import { Socket } from 'node:net';

export const HEARTBEAT_MS = 1000;
/** The event loop's own resolution, and what a busy machine of two cores does to a timer. */
const LATE_MS = 500;

export const API = { fetch: 1, offsetCommit: 8, joinGroup: 11, heartbeat: 12 } as const;

function append(lists: Map<number, number[]>, key: number, value: number): void {
  const list = lists.get(key) ?? [];
  list.push(value);
  lists.set(key, list);
}

/** Notes each request that leaves this process, by its API key, as kafkajs hands it to the socket. */
export class Requests {
  readonly #atMs = new Map<number, number[]>();
  readonly #bytes = new Map<number, number[]>();

  constructor() {
    const note = (data: unknown) => {
      if (!Buffer.isBuffer(data) || data.length < 8) return;
      const key = data.readInt16BE(4);
      append(this.#atMs, key, performance.now());
      append(this.#bytes, key, data.length);
    };
    const write = Reflect.get(Socket.prototype, 'write') as (...args: unknown[]) => boolean;
    const noting = function (this: Socket, ...args: unknown[]): boolean {
      note(args[0]);
      return write.apply(this, args);
    };
    Object.defineProperty(Socket.prototype, 'write', { value: noting, writable: true, configurable: true });
  }

  /** When each was sent, on the clock of `performance.now()`. */
  of(key: number): readonly number[] {
    return this.#atMs.get(key) ?? [];
  }

  sizesOf(key: number): readonly number[] {
    return this.#bytes.get(key) ?? [];
  }

  end(): void {
    // It was a stream's own.
    Reflect.deleteProperty(Socket.prototype, 'write');
  }
}

export interface Heartbeats {
  readonly heartbeats: number;
  readonly heartbeatsLate: number;
  readonly longestBetweenHeartbeatsMs: number;
}

/** `beats`: when each was sent. */
export function judgeHeartbeats(beats: readonly number[]): Heartbeats {
  const gaps = beats.slice(1).map((atMs, i) => atMs - beats[i]!);
  return {
    heartbeats: beats.length,
    heartbeatsLate: gaps.filter((gap) => gap > HEARTBEAT_MS + LATE_MS).length,
    longestBetweenHeartbeatsMs: Math.round(Math.max(0, ...gaps)),
  };
}

/** The most processor time that the thread of the event loop took between two looks, milliseconds. */
export function watchTurns(): () => number {
  let longestUs = 0;
  let before = threadUs();
  const looking = setInterval(() => {
    const now = threadUs();
    longestUs = Math.max(longestUs, now - before);
    before = now;
  }, 5);
  return () => {
    clearInterval(looking);
    return Math.round(longestUs / 1000);
  };
}

/** Of this thread, where the system tells it; else of the process, helpers of the garbage collector included. */
function threadUs(): number {
  if (process.platform === 'linux')
    return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ')[0]) / 1000;
  const { user, system } = process.cpuUsage();
  return user + system;
}
