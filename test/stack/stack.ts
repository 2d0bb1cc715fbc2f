// The servers the tests need, started together: Kafka, ZooKeeper and ClickHouse, or those that the environment names.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { clickhouseServer, type ClickhouseOptions } from './clickhouse.js';
import { kafkaCluster, kafkaServer, type KafkaOptions } from './kafka.js';
import type { ServerProcess } from './process.js';
import { zookeeperServer, type ZookeeperOptions } from './zookeeper.js';

export interface StackOptions {
  /** @default true */
  readonly kafka?:
    | boolean
    | (KafkaOptions & {
        /** 3: a cluster in which one may fail. @default 1 */
        readonly brokers?: 1 | 3;
      });
  /** @default true */
  readonly keeper?: boolean | ZookeeperOptions;
  /** @default true */
  readonly clickhouse?: boolean | ClickhouseOptions;
  /** Data, configuration and logs go beneath it. @default a new directory in the system's temporary one */
  readonly root?: string;
  /** Leave the root there after `stop()`, and end the servers in order. @default false */
  readonly keep?: boolean;
  /** Use the servers that KAFKA_BROKERS, KEEPER_CONNECT and CLICKHOUSE_URL name. @default true */
  readonly useEnvironment?: boolean;
}

export interface Addresses {
  /** Empty when no Kafka was asked for. */
  readonly brokers: string[];
  /** Empty when no ClickHouse was asked for. */
  readonly clickhouseUrl: string;
  /** Empty when no ZooKeeper was asked for. */
  readonly keeperConnect: string;
}

export interface Stack extends Addresses {
  readonly root: string;
  /** These are undefined when not asked for, or when the environment names the server. */
  readonly kafka: ServerProcess | undefined;
  readonly zookeeper: ServerProcess | undefined;
  readonly clickhouse: ServerProcess | undefined;
  /** Every broker; `kafka` is the first. */
  readonly kafkas: readonly ServerProcess[];
  stop(): Promise<void>;
}

/** Starts what is asked for, all at once; resolves when each has answered. */
export async function startStack(options: StackOptions = {}): Promise<Stack> {
  const given = options.useEnvironment === false ? {} : process.env;
  const root = options.root ?? mkdtempSync(join(tmpdir(), 'kafka-clickhouse-stack-'));
  mkdirSync(root, { recursive: true });
  const kafkas = given['KAFKA_BROKERS']
    ? undefined
    : wanted(options.kafka, async (own) => {
        const dir = join(root, 'kafka');
        return own?.brokers === 3 ? kafkaCluster(dir, own) : [await kafkaServer(dir, own)];
      });
  const zookeeper = given['KEEPER_CONNECT']
    ? undefined
    : wanted(options.keeper, (own) => zookeeperServer(join(root, 'zookeeper'), own));
  const keeper = (await zookeeper)?.address ?? given['KEEPER_CONNECT'];
  const clickhouse = given['CLICKHOUSE_URL']
    ? undefined
    : wanted(options.clickhouse, (own) =>
        clickhouseServer(join(root, 'clickhouse'), { ...(keeper ? { keeper } : {}), ...own }),
      );
  const brokers = (await kafkas) ?? [];
  const servers = { kafka: brokers[0], zookeeper: await zookeeper, clickhouse: await clickhouse };
  const all = [...brokers, servers.zookeeper, servers.clickhouse].filter((server) => server !== undefined);

  const stop = async (): Promise<void> => {
    // What is thrown away need not be shut down in order.
    await Promise.all(all.map((server) => (options.keep ? server.stop() : server.kill())));
    if (!options.keep) rmSync(root, { recursive: true, force: true, maxRetries: 5 });
  };
  const starts = await Promise.allSettled(all.map((server) => server.start()));
  const failed = starts.find((start) => start.status === 'rejected');
  if (failed) {
    await stop();
    throw failed.reason;
  }
  return {
    root,
    brokers:
      kafkas === undefined
        ? (given['KAFKA_BROKERS'] ?? '').split(',').filter(Boolean)
        : brokers.map(({ address }) => address),
    kafkas: brokers,
    clickhouseUrl: servers.clickhouse?.address ?? given['CLICKHOUSE_URL'] ?? '',
    keeperConnect: keeper ?? '',
    ...servers,
    stop,
  };
}

function wanted<Options extends object, Servers>(
  option: boolean | Options | undefined,
  make: (options: Options | undefined) => Promise<Servers>,
): Promise<Servers> | undefined {
  if (option === false) return undefined;
  return make(typeof option === 'object' ? option : undefined);
}
