/**
 * The state of partitions in ZooKeeper or ClickHouse Keeper: one persistent node per partition at
 * `<path>/<cluster>/<group>/<topic>/<partition>`, replaced by `setData` with the node's version.
 * Sockets and sessions are in `keeper-connection.ts`.
 *
 * Why a lost reply cannot lose or double a write
 *
 * A request whose reply was lost may have taken effect, may never do so, or may do so later: it can still sit in the
 * network or in the server's queue while we are connected again, elsewhere. Within one session ZooKeeper keeps the
 * order of requests, but a new session is ordered behind nothing of the old one, so a read alone, even after `sync`,
 * cannot tell "never" from "not yet". Therefore nothing is concluded from a read alone:
 *
 * 1. Every write is conditional on the version that its claim stands on. A version is used up by the first write that
 *    takes effect on it, whoever's that is, so of a request and its repetitions at most one takes effect, in whatever
 *    order and however late they arrive. (A node that is deleted and made again begins at version 0 again, which would
 *    undo this: nodes are never deleted while somebody holds a claim; to reset a partition, write the empty state.)
 * 2. A lost reply is answered by sending the same text on the same version again. Success: it was this one that took
 *    effect, and the lost one never will. BAD_VERSION: the version is used up for good, hence what the node holds now
 *    decides: our own text (every write's is unique) says that the lost one had taken effect; any other says fenced.
 * 3. That read comes on the connection that gave BAD_VERSION, so in the same session, and sees at least the write that
 *    used up the version, even from a follower that lags behind. When the connection breaks in between, 2 starts again.
 * 4. When time is up the outcome stays open: KCR_STORE_UNREACHABLE. Calling again with the same claim and state sends
 *    the same text on the same version: still 2.
 *
 * Claims are writes like any other: read, then write the new owner on the version that was read. That the read may
 * come from a lagging follower does no harm: what it gave is current if and only if the write on its version succeeds.
 * A claim whose reply was lost is simply made once more, over its own effect if it had one. One that takes effect late,
 * after its caller gave up, fences the owner of that time; it never changes a state.
 * Imports: Node, errors, model, ports, rxjs.
 */
import { randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { defer } from 'rxjs';
import { IngestError, asIngestError, hasCode } from '../errors.js';
import { decodeState, encodeState, neverStored } from '../model/state-codec.js';
import type { PartitionState } from '../model/state.js';
import type { Claim, StateKey, StateStore, Stored } from '../ports.js';
import { KeeperConnection, isKeeperError, keeperErrors, type KeeperServer } from './keeper-connection.js';
import { keeperSettings, pathOf, type KeeperStoreConfig } from './keeper-settings.js';
import { asStored, fencedBy, nextText, untilUnsubscribed, type Mark } from './write-marks.js';

export type { KeeperStoreConfig } from './keeper-settings.js';

/** What `checkKeeper` found. */
export interface KeeperCheck {
  /** The server that answered. */
  readonly server: string;
  /** The node under which states are kept, as the server names it. */
  readonly path: string;
}

const maxClaimRounds = 100;
const firstPauseMs = 25;
const maxPauseMs = 1000;
const whereToLook =
  'check that ZooKeeper or ClickHouse Keeper is running and that `connect` names its client port (2181 by custom, ' +
  '9181 for ClickHouse Keeper).';

/** Connects when first used. */
export function keeperStore(config: KeeperStoreConfig): StateStore {
  const keeper = new Keeper(config);
  return {
    name: 'keeper',
    claim: (key, owner) => untilUnsubscribed((signal) => claim(keeper, key, owner, signal)),
    write: (held, state) => untilUnsubscribed((signal) => write(keeper, held, state, signal)),
    read: (key) => defer(() => read(keeper, key)),
    close: () => keeper.close(),
  };
}

/**
 * Can states be kept there? Creates the path, then writes and removes a node beneath it.
 * Errors: `KCR_CONFIG`, `KCR_STORE_UNREACHABLE`, `KCR_STORE`.
 */
export async function checkKeeper(config: KeeperStoreConfig): Promise<KeeperCheck> {
  const keeper = new Keeper(config);
  try {
    return await keeper.call('Checking', undefined, async (connection) => {
      const probe = `${keeper.root}/probe-${randomBytes(6).toString('hex')}`;
      await createWithParents(connection, probe, '');
      await connection.set(probe, 'written', 0);
      await connection.remove(probe);
      return { server: connection.server, path: keeper.root || '/' };
    });
  } finally {
    await keeper.close();
  }
}

function claim(keeper: Keeper, key: StateKey, owner: string, signal: AbortSignal): Promise<Claim> {
  const path = pathOf(keeper.root, key);
  const claimId = randomBytes(9).toString('base64url');

  return keeper.call('Claiming', key, async (connection) => {
    for (let round = 1; round <= maxClaimRounds; round++) {
      const node = await connection.get(path);
      const { state } = node === undefined || node.text === '' ? neverStored : decodeState(node.text, key);
      const text = encodeState({ state, owner, write: `${claimId}-0` }, key);
      const claimed = (version: number): Claim => ({
        key,
        owner,
        state,
        version: { version, claimId, writes: 0 } satisfies Mark,
      });
      signal.throwIfAborted();
      try {
        if (node !== undefined) return claimed(await connection.set(path, text, node.version));
        await createWithParents(connection, path, text);
        return claimed(0);
      } catch (thrown) {
        if (!isKeeperError(thrown, keeperErrors.badVersion, keeperErrors.nodeExists, keeperErrors.noNode)) throw thrown;
      }
      // Somebody was quicker: the later claim wins, so read what they wrote and claim again.
    }
    throw new IngestError('KCR_STORE_UNREACHABLE', `others wrote the state ${maxClaimRounds} times in between`);
  });
}

function write(
  keeper: Keeper,
  { key, owner, version }: Claim,
  state: PartitionState,
  signal: AbortSignal,
): Promise<Claim> {
  const path = pathOf(keeper.root, key);
  const mark = version as Mark;
  const text = nextText(key, owner, mark, state);
  const written = (now: number): Claim => ({
    key,
    owner,
    state,
    version: { ...mark, version: now, writes: mark.writes + 1 } satisfies Mark,
  });

  return keeper.call('Writing', key, async (connection) => {
    signal.throwIfAborted();
    try {
      return written(await connection.set(path, text, mark.version));
    } catch (thrown) {
      if (isKeeperError(thrown, keeperErrors.noNode)) throw deleted(path, thrown);
      if (!isKeeperError(thrown, keeperErrors.badVersion)) throw thrown;
      const node = await connection.get(path);
      if (node === undefined) throw deleted(path, thrown);
      if (node.text === text) return written(node.version);
      throw fencedBy(key, owner, mark, node.text);
    }
  });
}

/** As the server that is asked has it, which may be behind: only a claim makes it certain. */
function read(keeper: Keeper, key: StateKey): Promise<Stored> {
  return keeper.call('Reading', key, async (connection) => {
    const node = await connection.get(pathOf(keeper.root, key));
    return asStored(node === undefined || node.text === '' ? neverStored : decodeState(node.text, key));
  });
}

/** The servers, and the connection to one of them that all calls share. */
class Keeper {
  /** The node under which all states are kept; absolute, without a slash at its end. */
  readonly root: string;
  readonly #servers: readonly KeeperServer[];
  readonly #operationTimeoutMs: number;
  readonly #sessionTimeoutMs: number;
  readonly #requestTimeoutMs: number;
  readonly #auth: string | undefined;
  readonly #closed = new AbortController();
  #connection: Promise<KeeperConnection> | undefined;
  #nextServer: number;

  constructor(config: KeeperStoreConfig) {
    const { servers, root, sessionTimeoutMs, operationTimeoutMs, auth } = keeperSettings(config);
    this.#servers = servers;
    this.#nextServer = Math.floor(Math.random() * servers.length);
    this.root = root;
    this.#sessionTimeoutMs = sessionTimeoutMs;
    this.#operationTimeoutMs = operationTimeoutMs;
    // One server that is silent must not use up a call's whole time.
    this.#requestTimeoutMs = Math.ceil(operationTimeoutMs / 3);
    this.#auth = auth;
    // Every call that waits listens to it.
    setMaxListeners(0, this.#closed.signal);
  }

  /** Does `work` on a connection, and again on another one when it broke, until time is up. */
  async call<T>(
    what: string,
    key: StateKey | undefined,
    work: (connection: KeeperConnection) => Promise<T>,
  ): Promise<T> {
    const place = { topic: key?.topic, partition: key?.partition };
    const endMs = performance.now() + this.#operationTimeoutMs - this.#requestTimeoutMs;
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, maxPauseMs)) {
      try {
        this.#closed.signal.throwIfAborted();
        return await work(await this.#connected());
      } catch (cause) {
        if (this.#closed.signal.aborted) throw this.#closed.signal.reason;
        if (!hasCode(cause, 'KCR_STORE_UNREACHABLE')) throw refused(what, place, cause);
        if (performance.now() + pauseMs > endMs) {
          const names = this.#servers.map(({ host, port }) => `${host}:${port}`).join(',');
          const message = `${what} failed: Keeper at ${names} does not answer: ${cause.message}`;
          throw new IngestError('KCR_STORE_UNREACHABLE', message, { ...place, hint: whereToLook, cause });
        }
      }
      await sleep(pauseMs, undefined, { signal: this.#closed.signal }).catch(() => undefined);
    }
  }

  /** Gives the session back. Calls under way error with `KCR_STORE`, as does every call from now on. */
  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(new IngestError('KCR_STORE', 'The state store is closed'));
    const connection = await this.#connection?.catch(() => undefined);
    await connection?.close();
  }

  #connected(): Promise<KeeperConnection> {
    if (this.#connection !== undefined) return this.#connection;
    const server = this.#servers[this.#nextServer++ % this.#servers.length]!;
    const config = {
      sessionTimeoutMs: this.#sessionTimeoutMs,
      requestTimeoutMs: this.#requestTimeoutMs,
      auth: this.#auth,
    };
    const opening = KeeperConnection.open(server, config, this.#closed.signal);
    this.#connection = opening;
    const forget = (): void => void (this.#connection = undefined);
    opening.then((connection) => connection.whenEnded.then(forget), forget);
    return opening;
  }
}

async function createWithParents(connection: KeeperConnection, path: string, text: string): Promise<void> {
  try {
    return await connection.create(path, text);
  } catch (thrown) {
    if (!isKeeperError(thrown, keeperErrors.noNode)) throw thrown;
  }
  for (let end = path.indexOf('/', 1); end !== -1; end = path.indexOf('/', end + 1)) {
    await connection.create(path.slice(0, end), '').catch((thrown: unknown) => {
      if (!isKeeperError(thrown, keeperErrors.nodeExists)) throw thrown;
    });
  }
  await connection.create(path, text);
}

function deleted(path: string, cause: unknown): IngestError {
  return new IngestError('KCR_STORE', `The node ${path} was deleted while it was claimed`, {
    cause,
    hint: 'to reset a partition stop its owner first; what was in doubt is not known any more.',
  });
}

function refused(
  what: string,
  place: { readonly topic: string | undefined; readonly partition: number | undefined },
  thrown: unknown,
): IngestError {
  const hint = isKeeperError(thrown, keeperErrors.noAuth)
    ? 'the nodes belong to another user: set `auth` to the one who created them, or choose another path.'
    : undefined;
  return asIngestError(thrown, 'KCR_STORE', `${what} failed: Keeper refused`, { ...place, hint });
}
