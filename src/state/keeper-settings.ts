/**
 * What a person says of the Keeper that states are kept in, checked, and the names of its nodes. Pure.
 * Imports: errors, ports.
 */
import { IngestError } from '../errors.js';
import type { StateKey } from '../ports.js';
import type { KeeperServer } from './keeper-connection.js';

/** Where ZooKeeper or ClickHouse Keeper is, and where states are kept in it. */
export interface KeeperStoreConfig {
  /** Servers as `host:port,host:port`, with a path that everything goes beneath if one follows: `host:port/path`. */
  readonly connect: string;
  /** The node under which all states are kept; created when absent. @default '/kafka-clickhouse-rx' */
  readonly path?: string;
  /** The server forgets a client that it has not heard of for so long, milliseconds. @default 30000 */
  readonly sessionTimeoutMs?: number;
  /** After this a call that got no answer errors with `KCR_STORE_UNREACHABLE`, milliseconds. @default 10000 */
  readonly operationTimeoutMs?: number;
  /** `user:password` of the `digest` scheme; nodes are then created for this user alone. @default none: for everyone */
  readonly auth?: string;
}

export const keeperDefaults = {
  path: '/kafka-clickhouse-rx',
  sessionTimeoutMs: 30_000,
  operationTimeoutMs: 10_000,
} as const;
/** What the path of a node looks like. */
export const KEEPER_PATH = /^(\/(?!\.\.?(\/|$))[^/\p{Cc}]+)+$/u;

interface KeeperSettings {
  readonly servers: readonly KeeperServer[];
  /** The node under which all states are kept; absolute, without a slash at its end. */
  readonly root: string;
  readonly sessionTimeoutMs: number;
  readonly operationTimeoutMs: number;
  readonly auth: string | undefined;
}

/** @throws `KCR_CONFIG`, never showing the password. */
export function keeperSettings(config: KeeperStoreConfig): KeeperSettings {
  const {
    connect,
    path = keeperDefaults.path,
    sessionTimeoutMs = keeperDefaults.sessionTimeoutMs,
    operationTimeoutMs = keeperDefaults.operationTimeoutMs,
    auth,
  } = config;
  const { servers, chroot } = parseConnect(connect);
  checkPath(path);
  checkMs('sessionTimeoutMs', sessionTimeoutMs, 100);
  checkMs('operationTimeoutMs', operationTimeoutMs, 30);
  if (auth !== undefined && !/^[^:]+:/.test(auth))
    throw new IngestError('KCR_CONFIG', 'Expected `auth` to be "user:password"');
  return { servers, root: `${chroot}${path === '/' ? '' : path}`, sessionTimeoutMs, operationTimeoutMs, auth };
}

/** The node of one partition. */
export function pathOf(root: string, { cluster, group, topic, partition }: StateKey): string {
  return [root, ...[cluster, group, topic].map(nodeName), partition].join('/');
}

/** Any text as the name of one node; different texts give different names. */
function nodeName(text: string): string {
  // A node's name is not empty, not "." or "..", and has no slash.
  if (text === '') return '%';
  if (text === '.' || text === '..') return text.replaceAll('.', '%2E');
  try {
    return encodeURIComponent(text);
  } catch (cause) {
    throw new IngestError('KCR_CONFIG', `The name ${JSON.stringify(text)} is not valid Unicode`, { cause });
  }
}

function parseConnect(connect: string): { readonly servers: readonly KeeperServer[]; readonly chroot: string } {
  const slash = connect.indexOf('/');
  const list = slash === -1 ? connect : connect.slice(0, slash);
  const servers = list.split(',').map((text): KeeperServer => {
    const [, host, port = '2181'] = /^\s*([^\s:[\]]+)(?::(\d{1,5}))?\s*$/.exec(text) ?? [];
    if (host === undefined || Number(port) < 1 || Number(port) > 65_535) {
      throw new IngestError(
        'KCR_CONFIG',
        `Expected \`connect\` to be "host:port,host:port", got ${JSON.stringify(connect)}`,
      );
    }
    return { host, port: Number(port) };
  });
  const chroot = slash === -1 ? '' : connect.slice(slash).replace(/\/$/, '');
  if (chroot !== '') checkPath(chroot);
  return { servers, chroot };
}

function checkPath(path: string): void {
  if (path === '/' || KEEPER_PATH.test(path)) return;
  throw new IngestError(
    'KCR_CONFIG',
    `Expected the path of a node, such as "/kafka-clickhouse-rx", got ${JSON.stringify(path)}`,
  );
}

function checkMs(option: string, ms: number, least: number): void {
  if (Number.isInteger(ms) && ms >= least && ms <= 2 ** 31 - 1) return;
  throw new IngestError('KCR_CONFIG', `Expected \`${option}\` to be milliseconds from ${least}, got ${ms}`);
}
