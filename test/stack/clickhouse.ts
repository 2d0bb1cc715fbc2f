// A ClickHouse server as a process: `clickhouse server` where there is one on the PATH, else the engine that the
// npm package chdb brings, run as clickhouse-local with its HTTP interface open.
import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { chdbCommand, graftFault } from './chdb/library.js';
import { ping, query } from './clients.js';
import { freePort, ServerProcess } from './process.js';

export interface ClickhouseOptions {
  /** host:port of a ZooKeeper; makes KeeperMap tables and replicated ones work. It need not be up yet. */
  readonly keeper?: string;
  /** More XML inside <clickhouse> of the server's configuration. */
  readonly config?: string;
  /** More XML inside <users>, for users beside `default`. Only a full server knows `CREATE USER`. */
  readonly users?: string;
  /** More XML inside <profiles><default>: settings every query starts with. */
  readonly settings?: string;
  /** Inserts with async_insert=1 wait for others, as at `clickhouse server`; see `coalescingFaultHere`. */
  readonly asyncInserts?: boolean;
}

/** Writes the configuration and chooses the ports; the caller starts it. */
export async function clickhouseServer(dir: string, options: ClickhouseOptions = {}): Promise<ServerProcess> {
  const httpPort = await freePort();
  const dataDir = join(dir, 'data');
  const configFile = join(dir, 'config.xml');
  const usersFile = join(dir, 'users.xml');
  const logFile = join(dir, 'clickhouse.log');
  const url = `http://127.0.0.1:${httpPort}`;
  const binary = onPath('clickhouse');
  const server = binary
    ? { command: [binary, 'server', `--config-file=${configFile}`] as const, env: {} }
    : chdbCommand(configFile, dataDir, httpPort, {
        needs: options.asyncInserts ? ['async-queue'] : [],
        wants: options.keeper ? ['interserver-address'] : [],
      });
  const own = binary ? serverOnly(await freePort(), await freePort(), join(dir, 'access')) : '';
  mkdirSync(dataDir, { recursive: true });
  writeFileSync(usersFile, usersXml(options));
  writeFileSync(configFile, configXml(options, { httpPort, dataDir, usersFile, own }));
  return new ServerProcess({
    name: 'ClickHouse',
    address: url,
    dataDir,
    logFile,
    command: server.command,
    // Without it `clickhouse server` forks, and the process one kills is not the one that serves.
    env: { CLICKHOUSE_WATCHDOG_ENABLE: '0', ...server.env },
    ready: async () => {
      await ping(url);
      await query(url, 'SELECT 1');
    },
  });
}

/** Why a ClickHouse of our own cannot let inserts wait for others; undefined: it can. */
export function coalescingFaultHere(): string | undefined {
  return onPath('clickhouse') ? undefined : graftFault('async-queue');
}

/** Why a ClickHouse of our own that has a ZooKeeper cannot have replicated tables; undefined: it can. */
export function replicationFaultHere(): string | undefined {
  return onPath('clickhouse') ? undefined : graftFault('interserver-address');
}

function onPath(name: string): string | undefined {
  const candidates = (process.env['PATH'] ?? '')
    .split(delimiter)
    .filter(Boolean)
    .map((dir) => join(dir, name));
  return candidates.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** What only `clickhouse server` understands; with it `CREATE USER` works, and replicas can fetch from each other. */
function serverOnly(tcpPort: number, interserverPort: number, accessDir: string): string {
  return `
  <tcp_port>${tcpPort}</tcp_port>
  <interserver_http_port>${interserverPort}</interserver_http_port>
  <interserver_http_host>127.0.0.1</interserver_http_host>
  <user_directories>
    <users_xml><path>users.xml</path></users_xml>
    <local_directory><path>${accessDir}/</path></local_directory>
  </user_directories>`;
}

interface StartOffsets {
  readonly httpPort: number;
  readonly dataDir: string;
  readonly usersFile: string;
  readonly own: string;
}

function configXml(options: ClickhouseOptions, { httpPort, dataDir, usersFile, own }: StartOffsets): string {
  return `<clickhouse>
  <logger><level>warning</level><console>1</console></logger>
  <listen_host>127.0.0.1</listen_host>
  <http_port>${httpPort}</http_port>${own}
  <path>${dataDir}/</path>
  <tmp_path>${dataDir}/tmp/</tmp_path>
  <user_files_path>${dataDir}/user_files/</user_files_path>
  <users_config>${usersFile}</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <mark_cache_size>67108864</mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <index_mark_cache_size>16777216</index_mark_cache_size>
  <mmap_cache_size>100</mmap_cache_size>
  <compiled_expression_cache_size>16777216</compiled_expression_cache_size>
  <background_schedule_pool_size>16</background_schedule_pool_size>
  <query_log>
    <database>system</database><table>query_log</table>
    <flush_interval_milliseconds>1000</flush_interval_milliseconds>
  </query_log>
  <part_log>
    <database>system</database><table>part_log</table>
    <flush_interval_milliseconds>1000</flush_interval_milliseconds>
  </part_log>${keeperXml(options.keeper)}
  ${options.config ?? ''}
</clickhouse>
`;
}

function keeperXml(keeper: string | undefined): string {
  if (keeper === undefined) return '';
  const [host, port] = keeper.split(':');
  return `
  <zookeeper>
    <node><host>${host}</host><port>${port}</port></node>
    <session_timeout_ms>10000</session_timeout_ms>
  </zookeeper>
  <keeper_map_path_prefix>/keeper_map</keeper_map_path_prefix>
  <macros><shard>1</shard><replica>1</replica></macros>`;
}

function usersXml(options: ClickhouseOptions): string {
  return `<clickhouse>
  <profiles>
    <default>${options.settings ?? ''}</default>
    <readonly><readonly>1</readonly></readonly>
  </profiles>
  <users>
    <default>
      <password></password>
      <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <access_management>1</access_management>
      <named_collection_control>1</named_collection_control>
    </default>
    ${options.users ?? ''}
  </users>
  <quotas><default/></quotas>
</clickhouse>
`;
}
