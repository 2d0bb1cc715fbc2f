// Events of 244 bytes into a topic by Kafka's own idempotent producer, in a process of its own: millions at once, or
// a steady load.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { command } from '../stack/clients.js';
import { jars, java } from '../stack/jars.js';

/** The columns of such an event. */
export const eventColumns =
  'id UInt64, at UInt64, user UInt32, kind LowCardinality(String), url String, agent String, amount Float64';

export interface EventsConfig {
  readonly brokers: readonly string[];
  readonly topic: string;
  readonly partitions: number;
  /** @default no end */
  readonly records?: number;
  /** @default as many as the broker takes */
  readonly perSecond?: number;
}

const program = fileURLToPath(new URL('ProduceEvents.java', import.meta.url));
const noEnd = 1_000_000_000_000;

export class EventProducer {
  readonly #closeInput: () => void;
  readonly #ended: Promise<readonly number[]>;

  private constructor(ended: Promise<readonly number[]>, closeInput: () => void) {
    this.#ended = ended;
    this.#closeInput = closeInput;
  }

  /** Resolves when the first record was acknowledged. */
  static async start({
    brokers,
    topic,
    partitions,
    records = noEnd,
    perSecond = 0,
  }: EventsConfig): Promise<EventProducer> {
    const options = [
      '-Xmx512m',
      '-XX:+UseSerialGC',
      '-Dorg.slf4j.simpleLogger.defaultLogLevel=error',
      '-cp',
      join(await jars('kafka'), '*'),
    ];
    const child = spawn(
      java(),
      [...options, program, brokers.join(','), topic, ...[partitions, records, perSecond].map(String)],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    const endWithUs = (): void => void child.kill('SIGKILL');
    process.once('exit', endWithUs);
    let last = '';
    const lines = createInterface({ input: child.stdout }).on('line', (line) => (last = line));
    const ended = once(child, 'close').then(([code]) => {
      process.off('exit', endWithUs);
      if (code !== 0) throw new Error(`the producer of ${topic} ended with ${String(code)}`);
      return JSON.parse(last) as number[];
    });
    ended.catch(() => undefined);
    await Promise.race([once(lines, 'line'), ended]);
    return new EventProducer(ended, () => child.stdin.end());
  }

  /** How many records of each partition were acknowledged, once it has sent them all. */
  get ended(): Promise<readonly number[]> {
    return this.#ended;
  }

  /** Ends a steady load. */
  stop(): Promise<readonly number[]> {
    this.#closeInput();
    return this.#ended;
  }
}

/** Sends so many as quickly as it goes. */
export async function produceEvents(config: EventsConfig & { readonly records: number }): Promise<readonly number[]> {
  return (await EventProducer.start(config)).ended;
}

/** What events are ingested into: with provenance, and a window that remembers tokens. Fails where there is a table of that name. */
export async function createTable(url: string, table: string, columns = eventColumns): Promise<void> {
  await command(
    url,
    `CREATE TABLE ${table} (${columns}, _topic LowCardinality(String), _partition UInt32, _offset UInt64)
     ENGINE = MergeTree ORDER BY (_partition, _offset) SETTINGS non_replicated_deduplication_window = 10000`,
  );
}
