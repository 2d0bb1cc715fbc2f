// A topic, a table and a configuration of one's own on the shared servers, for tests of the commands.
import { randomUUID } from 'node:crypto';
import { checkConfig } from '../../src/config/config.js';
import { openStateAccess } from '../../src/stores/stores.js';
import { look } from '../../src/tools/status.js';
import { verify, type Verdict, type VerifyOptions } from '../../src/tools/verify.js';
import { command, createTopic, query } from '../stack/clients.js';
import { sharedStack } from '../stack/shared.js';
import { configFile, program, type Ended } from './program.js';

export interface PlaceOptions {
  readonly partitions?: number;
  /** `{table}` becomes the name. @default with provenance columns */
  readonly table?: string;
  /** @default 2000: a process that was killed is not waited for long */
  readonly sessionTimeoutMs?: number;
  /** More of the configuration. */
  readonly config?: object;
  /** More of `kafka` in it. */
  readonly kafka?: object;
}

const withProvenance = `CREATE TABLE {table} (id UInt64, text String, _topic String, _partition UInt32, _offset UInt64)
  ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000`;

export class Place {
  /** Of the topic, the table and the group. */
  readonly name = `tools_${randomUUID().slice(0, 8)}`;
  readonly stack = sharedStack();
  config: object = {};
  #file = '';

  static async make({
    partitions = 1,
    table = withProvenance,
    sessionTimeoutMs = 2_000,
    config = {},
    kafka = {},
  }: PlaceOptions = {}): Promise<Place> {
    const place = new Place();
    const { name, stack } = place;
    await Promise.all([
      createTopic(stack.brokers, name, { partitions }),
      command(stack.clickhouseUrl, table.replace('{table}', name)),
    ]);
    place.config = {
      kafka: {
        brokers: stack.brokers,
        groupId: name,
        fromBeginning: true,
        sessionTimeoutMs,
        heartbeatIntervalMs: 300,
        ...kafka,
      },
      clickhouse: { url: stack.clickhouseUrl },
      state: { store: 'keeper', connect: stack.keeperConnect },
      delivery: 'exactly-once',
      routes: [{ topic: name, table: name }],
      batch: { maxWaitMs: 50 },
      ...config,
    };
    place.#file = configFile(place.config);
    return place;
  }

  get file(): string {
    return this.#file;
  }

  /** A command to its end: `run('state show', '--json')`. */
  run(name: string, ...options: readonly string[]): Promise<Ended> {
    return program([...name.split(' '), this.#file, ...options]).ended;
  }

  /** The object a command prints with `--json`, whatever its exit code. */
  async json<T>(name: string, ...options: readonly string[]): Promise<T & { readonly exit: number | null }> {
    const { code, stdout, stderr } = await this.run(name, ...options, '--json');
    if (stdout === '') throw new Error(`${name} printed nothing, exit code ${code}\n${stderr}`);
    return { ...(JSON.parse(stdout) as T), exit: code };
  }

  /** The offset a partition is settled up to; asked from here, since a process for each look takes its time. */
  async settled(partition = 0): Promise<number | undefined> {
    const config = checkConfig(this.config);
    const access = openStateAccess(config);
    try {
      const { partitions } = await look(config, access, { partition });
      return partitions[0]?.stored?.state.settled;
    } finally {
      await access.close();
    }
  }

  /** As the command does, in this process. */
  async verified(options: VerifyOptions = {}): Promise<Verdict> {
    const config = checkConfig(this.config);
    const access = openStateAccess(config);
    try {
      return await verify(config, access, options);
    } finally {
      await access.close();
    }
  }

  sql(statement: string, options: Parameters<typeof command>[2] = {}): Promise<string> {
    return command(this.stack.clickhouseUrl, statement.replaceAll('{table}', this.name), options);
  }

  async rows<Row>(select: string): Promise<Row[]> {
    return query<Row>(this.stack.clickhouseUrl, select.replaceAll('{table}', this.name));
  }
}

export const event = (id: number) => ({ value: JSON.stringify({ id, text: `event ${id}` }) });
export const events = (from: number, count: number, partition = 0) =>
  Array.from({ length: count }, (_, i) => ({ ...event(from + i), partition }));
