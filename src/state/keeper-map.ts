/**
 * The state of partitions in a ClickHouse table of the engine KeeperMap, for those whose ClickHouse has a Keeper
 * that nobody else can reach. One row per partition: `key` is the JSON list `[cluster, group, topic, partition]`,
 * `value` the state. Statements go out and answers are checked as everywhere: see
 * `clickhouse/client/ask.ts`.
 *
 * What KeeperMap gives, and what it does not
 *
 * A row is one node in Keeper. `INSERT` makes it, `ALTER … UPDATE value = new WHERE key = … AND value = old` reads it,
 * compares, and sets it. With `keeper_map_strict_mode` both are sound: the first is a `create`, the second a `set` on
 * the version that was read, so what came in between makes it fail ("Bad version"). Without, two that update at once
 * both succeed, which is why the mode goes with every statement and `checkKeeperMap` proves that it is obeyed. The
 * statement is done when it is answered; no mutation stays behind.
 *
 * No answer tells who won. 200 is also given where the condition matched nothing. "Bad version" and "Node exists" are
 * also given to the winner: ClickHouse repeats a request to Keeper whose reply it lost, and stumbles over its own first
 * one. Hence every write is followed by a read, whatever was answered, and the row decides.
 *
 * Why a lost reply cannot lose or double a write
 *
 * A statement whose reply was lost may take effect later: it runs on in ClickHouse, for half a minute when Keeper does
 * not answer. No read can tell "never" from "not yet", so nothing is concluded from a read that shows the old value:
 *
 * 1. Every write is conditional on the whole text that its claim stands on, or on there being none. No two writes share
 *    a text, for each has a name of its own, so a text that was replaced never comes back, and of a statement and its
 *    repetitions at most one takes effect, in whatever order and however late they arrive. That holds even across a row
 *    that was deleted and made again: the row that a late first claim makes has the empty state, as if it were not
 * there.
 * 2. A lost reply is answered by sending the same statement again and then reading. The row holds our text: it took
 *    effect, whichever of them it was, and none will again. It holds a third text, and its version (Keeper counts a
 *    node's writes) is not below the one our claim stands on: the old text is gone for good, hence we are fenced.
 * 3. The row holds the old text still, or an older one, or there is no row: the ClickHouse that was asked is behind.
 *    KeeperMap reads from the Keeper server that this ClickHouse has its session with, which may lag; and behind a load
 *    balancer the next ClickHouse may be another one. It is neither success nor fencing: 2 starts again.
 * 4. When time is up the outcome stays open: KCR_STORE_UNREACHABLE. Calling again with the same claim and state sends
 *    the same statement: still 2. A row that is missing or too old by then was deleted: KCR_STORE.
 *
 * Claims are writes like any other: read, write the new owner on the text that was read, read back. That the first read
 * may be behind does no harm: what it gave is current if and only if the write on it takes effect. A claim that the
 * read does not show, because its reply was lost or somebody was quicker, is made once more, under a new name, over its
 * own effect if it had one. One that takes effect late, after its caller gave up, fences the owner of that time; it
 * never changes a state. `read` alone is as old as the server that answers; only a claim makes it certain.
 * Imports: Node, errors, model, ports.
 */
import { randomBytes } from 'node:crypto';
import { IngestError } from '../errors.js';
import { decodeState, encodeState, neverStored } from '../model/state-codec.js';
import type { PartitionState } from '../model/state.js';
import type { Claim, StateKey, StateStore, Stored } from '../ports.js';
import { asStored, fencedBy, nextText, untilUnsubscribed, type Mark } from './write-marks.js';

import {
  KeeperMap,
  NotYet,
  rowKeyOf,
  type KeeperMapStoreConfig,
  type Row,
  type Statements,
} from './keeper-map-table.js';

export { keeperMapDefaults, type KeeperMapStoreConfig } from './keeper-map-table.js';

/** What `checkKeeperMap` found. */
export interface KeeperMapCheck {
  /** The server that answered. */
  readonly server: string;
  readonly version: string;
  /** The table in which states are kept. */
  readonly table: string;
}

interface TextMark extends Mark {
  /** The row's whole value: what the next write replaces. */
  readonly text: string;
}

/** Connects when first used. */
export function keeperMapStore(config: KeeperMapStoreConfig): StateStore {
  const map = new KeeperMap(config);
  return {
    name: 'keeper-map',
    claim: (key, owner) => untilUnsubscribed((signal) => claim(map, key, owner, signal)),
    write: (held, state) => untilUnsubscribed((signal) => write(map, held, state, signal)),
    read: (key) => untilUnsubscribed((signal) => read(map, key, signal)),
    close: () => map.close(),
  };
}

/**
 * Can states be kept there? Makes the table when absent, then tries every kind of write on a row of its own and removes
 * it. Errors: `KCR_CONFIG`, `KCR_STORE_UNREACHABLE`, `KCR_STORE` with what has to be changed.
 */
export async function checkKeeperMap(config: KeeperMapStoreConfig): Promise<KeeperMapCheck> {
  const map = new KeeperMap(config);
  try {
    return await map.call('Checking', undefined, undefined, async (table) => {
      const version = await table.serverVersion();
      const probe = JSON.stringify(['probe', randomBytes(6).toString('hex')]);
      try {
        await prove(map, table, probe);
      } catch (thrown) {
        await table.remove(probe).catch(() => undefined);
        throw thrown;
      }
      await table.remove(probe);
      return { server: map.address, version, table: map.name };
    });
  } finally {
    await map.close();
  }
}

/** Each write as a store makes it, and each as it must fail. */
async function prove(map: KeeperMap, table: Statements, probe: string): Promise<void> {
  const holds = async (text: string, step: string, failure: IngestError | undefined): Promise<void> => {
    const row = await table.select(probe);
    if (row?.text === text) return;
    if (failure !== undefined) throw new NotYet(failure);
    throw new IngestError(
      'KCR_STORE',
      `${map.name} does not compare and set: ${step}, and the row holds ${JSON.stringify(row?.text)}`,
      {
        hint:
          'see that the setting keeper_map_strict_mode=1, which goes with every request, gets to the server: ' +
          'a proxy may take it out.',
      },
    );
  };
  await holds('1', '1 was inserted', await table.insert(probe, '1'));
  const path = await table.pathInKeeper();
  if (path !== undefined && path !== map.path) {
    throw new IngestError('KCR_STORE', `${map.name} keeps its rows at ${path} in Keeper, not at ${map.path}`, {
      hint:
        `set \`path\` to ${path}, or choose another \`table\`; servers that share a Keeper must agree, else a ` +
        'partition gets two states.',
    });
  }
  await table.insert(probe, '2');
  await holds('1', '2 was inserted where a row was', undefined);
  await holds('1', '0 was to be replaced by 3', await table.replace(probe, '0', '3'));
  await holds('4', '1 was to be replaced by 4', await table.replace(probe, '1', '4'));
}

function claim(map: KeeperMap, key: StateKey, owner: string, signal: AbortSignal): Promise<Claim> {
  const rowKey = rowKeyOf(key);

  return map.call('Claiming', key, signal, async (table) => {
    const before = await table.select(rowKey);
    const { state } = before === undefined ? neverStored : decodeState(before.text, key);
    const claimId = randomBytes(9).toString('base64url');
    const text = encodeState({ state, owner, write: `${claimId}-0` }, key);
    const failure =
      before === undefined ? await table.insert(rowKey, text) : await table.replace(rowKey, before.text, text);
    const row = await readBack(table, rowKey, failure);
    if (row?.text === text)
      return { key, owner, state, version: { version: row.version, claimId, writes: 0, text } satisfies TextMark };
    // Somebody was quicker, or it is not known yet: the later claim wins, so claim again over what is there then.
    throw new NotYet(failure ?? map.unreachable('Claiming', key, 'others wrote the state in between, again and again'));
  });
}

function write(
  map: KeeperMap,
  { key, owner, version }: Claim,
  state: PartitionState,
  signal: AbortSignal,
): Promise<Claim> {
  const rowKey = rowKeyOf(key);
  const mark = version as TextMark;
  const text = nextText(key, owner, mark, state);

  return map.call('Writing', key, signal, async (table) => {
    const failure = await table.replace(rowKey, mark.text, text);
    const row = await readBack(table, rowKey, failure);
    if (row?.text === text) {
      const next: TextMark = { ...mark, version: row.version, writes: mark.writes + 1, text };
      return { key, owner, state, version: next };
    }
    if (row === undefined || row.version < mark.version) throw new NotYet(failure ?? map.deleted(key, row));
    if (row.text === mark.text)
      throw new NotYet(failure ?? map.unreachable('Writing', key, 'the state stays as it was'));
    throw fencedBy(key, owner, mark, row.text);
  });
}

/** When that gets no answer either, what the write was told says more about the reason. */
async function readBack(table: Statements, rowKey: string, failure: IngestError | undefined): Promise<Row | undefined> {
  try {
    return await table.select(rowKey);
  } catch (thrown) {
    throw failure !== undefined && thrown instanceof NotYet ? new NotYet(failure) : thrown;
  }
}

/** As the server that is asked has it, which may be behind: only a claim makes it certain. */
function read(map: KeeperMap, key: StateKey, signal: AbortSignal): Promise<Stored> {
  return map.call('Reading', key, signal, async (table) => {
    const row = await table.select(rowKeyOf(key));
    return asStored(row === undefined ? neverStored : decodeState(row.text, key));
  });
}
