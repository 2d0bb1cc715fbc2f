/**
 * One TCP connection to one ZooKeeper server (or ClickHouse Keeper), with one session, used until it ends and
 * never again. The only file that knows node-zookeeper-client. Which server, how often and what a lost reply means is
 * decided in `keeper.ts`.
 *
 * The client means to outlive its connections. It is kept from that here, since nothing of ours lives in a session (no
 * ephemeral node, no watch), and since in 1.1.3 (pinned) a second connection
 * - sends requests that were queued under the first one, long after their callers gave up;
 * - reads the rest of a reply that was cut off as the beginning of the next one;
 * - is tried for ever: `connect` never fails, and `close` while no server answers never ends.
 * Besides, an error code that it does not know is thrown out of the socket's `data` event and would end the process; a
 * server that is connected and silent is never noticed; a port out of range is thrown out of a `nextTick`.
 * Imports: Node, errors, node-zookeeper-client.
 */
import type { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import {
  ACL,
  CreateMode,
  Exception,
  Id,
  Permission,
  createClient,
  type Client,
  type Stat,
} from 'node-zookeeper-client';
import { IngestError } from '../errors.js';

export interface KeeperServer {
  readonly host: string;
  readonly port: number;
}

export interface ConnectionConfig {
  readonly sessionTimeoutMs: number;
  /** How long connecting, and each request, may take. */
  readonly requestTimeoutMs: number;
  /** `user:password` of ZooKeeper's `digest` scheme. */
  readonly auth: string | undefined;
}

export interface Node {
  readonly text: string;
  readonly version: number;
}

/** Errors that the server itself gave as its answer. */
export const keeperErrors = {
  noNode: Exception.NO_NODE,
  nodeExists: Exception.NODE_EXISTS,
  badVersion: Exception.BAD_VERSION,
  notEmpty: Exception.NOT_EMPTY,
  noAuth: Exception.NO_AUTH,
} as const;

export function isKeeperError(thrown: unknown, ...codes: readonly number[]): boolean {
  return thrown instanceof Exception && codes.includes(thrown.code);
}

/** What node-zookeeper-client keeps to itself and this file has to reach. */
interface Internals extends EventEmitter {
  socket: Socket | undefined;
  connectTimeoutHandler: NodeJS.Timeout | null;
  findNextServer: (found: (server: KeeperServer) => void) => void;
  onSocketClosed: () => void;
  onSocketError: (error: Error) => void;
  onSocketData: (bytes: Buffer) => void;
}

type Callback<T> = (error: Error | Exception | null, value: T) => void;

// The answer never came, or the session is no more: whether the request took effect is not known.
const inDoubt: readonly number[] = [Exception.CONNECTION_LOSS, Exception.SESSION_EXPIRED, Exception.OPERATION_TIMEOUT];
const closeLimitMs = 1000;

/**
 * Methods error with the reason when the connection ended, mostly `KCR_STORE_UNREACHABLE`; else with the server's
 * `Exception`.
 */
export class KeeperConnection {
  readonly server: string;
  readonly whenEnded: Promise<void>;
  readonly #client: Client;
  readonly #config: ConnectionConfig;
  readonly #acl: ACL[];
  /** Who waits for an answer, oldest first, as the server answers. */
  readonly #waiting = new Set<(reason: Error) => void>();
  #setEnded: () => void = () => undefined;
  #reason: IngestError | undefined;
  #socketError: Error | undefined;

  /** Resolves when the server has given a session. */
  static async open(server: KeeperServer, config: ConnectionConfig, signal: AbortSignal): Promise<KeeperConnection> {
    const connection = new KeeperConnection(server, config);
    await connection.#open(signal);
    return connection;
  }

  private constructor({ host, port }: KeeperServer, config: ConnectionConfig) {
    this.server = `${host}:${port}`;
    this.#config = config;
    // All rights to everyone, or with `auth` to those who are authenticated as we are.
    const whom = config.auth === undefined ? new Id('world', 'anyone') : new Id('auth', '');
    this.#acl = [new ACL(Permission.ALL, whom)];
    this.whenEnded = new Promise((resolve) => (this.#setEnded = resolve));
    this.#client = createClient(this.server, { sessionTimeout: config.sessionTimeoutMs, retries: 0 });
    if (config.auth !== undefined) this.#client.addAuthInfo('digest', Buffer.from(config.auth));
    this.#holdToOneSocket({ host, port });
  }

  get(path: string): Promise<Node | undefined> {
    return this.#request<Node>((done) =>
      this.#client.getData(path, (error, data: Buffer | undefined, stat?: Stat) =>
        done(error, { text: data?.toString('utf8') ?? '', version: stat?.version ?? 0 }),
      ),
    ).catch((thrown: unknown) => {
      if (isKeeperError(thrown, keeperErrors.noNode)) return undefined;
      throw thrown;
    });
  }

  /** Resolves with the new version. */
  async set(path: string, text: string, version: number): Promise<number> {
    // To the server, -1 means: whatever the version is.
    if (version < 0)
      throw new IngestError('KCR_STORE', `The node ${path} has the version ${version}, which cannot be compared`);
    const stat = await this.#request<Stat>((done) => this.#client.setData(path, Buffer.from(text), version, done));
    return stat.version;
  }

  async create(path: string, text: string): Promise<void> {
    await this.#request<string>((done) =>
      this.#client.create(path, Buffer.from(text), this.#acl, CreateMode.PERSISTENT, done),
    );
  }

  async remove(path: string): Promise<void> {
    await this.#request<undefined>((done) => this.#client.remove(path, -1, (error) => done(error, undefined)));
  }

  /** Gives the session back; resolves when the socket is closed, at the latest after a second. */
  async close(): Promise<void> {
    if (this.#reason !== undefined) return;
    const timer = setTimeout(() => this.end(this.#lost('was left')), closeLimitMs);
    this.#client.close();
    await this.whenEnded;
    clearTimeout(timer);
  }

  /** Cuts the connection; what waits for an answer errors with `reason`. */
  end(reason: IngestError): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    const internals = internalsOf(this.#client);
    if (internals.connectTimeoutHandler !== null) clearTimeout(internals.connectTimeoutHandler);
    internals.socket?.destroy();
    for (const fail of [...this.#waiting]) fail(reason);
    this.#setEnded();
  }

  #open(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const { requestTimeoutMs } = this.#config;
      const timer = setTimeout(
        () => this.end(this.#lost(`gave no session within ${requestTimeoutMs} ms`)),
        requestTimeoutMs,
      );
      const abort = (): void => this.end(signal.reason as IngestError);
      const settled = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', abort);
        this.#waiting.delete(fail);
      };
      const fail = (reason: Error): void => {
        settled();
        reject(reason);
      };
      this.#waiting.add(fail);
      this.#client.once('connected', () => {
        settled();
        resolve();
      });
      this.#client.once('expired', () => this.end(this.#lost('refused the session')));
      this.#client.once('authenticationFailed', () =>
        this.end(new IngestError('KCR_STORE', `${this.server} refused the user and password`)),
      );
      signal.addEventListener('abort', abort);
      this.#client.connect();
    });
  }

  #request<T>(send: (done: Callback<T>) => void): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#reason !== undefined) return reject(this.#reason);
      const { requestTimeoutMs } = this.#config;
      const timer = setTimeout(
        () => this.end(this.#lost(`gave no answer within ${requestTimeoutMs} ms`)),
        requestTimeoutMs,
      );
      const settled = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(fail);
      };
      const fail = (reason: Error): void => {
        settled();
        reject(reason);
      };
      this.#waiting.add(fail);
      send((error, value) => {
        settled();
        if (error === null || error === undefined) return resolve(value);
        if (!isKeeperError(error, ...inDoubt))
          return reject(error instanceof Error ? error : new Error(messageOf(error)));
        const lost = this.#lost(`lost the request: ${messageOf(error)}`);
        reject(lost);
        this.end(lost);
      });
    });
  }

  #lost(what: string): IngestError {
    return new IngestError('KCR_STORE_UNREACHABLE', `${this.server} ${what}`, { cause: this.#socketError });
  }

  #holdToOneSocket(server: KeeperServer): void {
    const internals = internalsOf(this.#client);
    const { onSocketData } = internals;
    internals.findNextServer = (found) => {
      if (this.#reason === undefined) found(server);
    };
    internals.onSocketError = (error) => (this.#socketError = error);
    internals.onSocketClosed = () => {
      const why =
        this.#socketError === undefined ? 'closed the connection' : `is not reached: ${messageOf(this.#socketError)}`;
      this.end(this.#lost(why));
    };
    internals.onSocketData = (bytes) => {
      try {
        onSocketData.call(internals, bytes);
      } catch (cause) {
        this.end(this.#lost(`gave an answer that is not understood: ${messageOf(cause)}`));
      }
    };
  }
}

function internalsOf(client: Client): Internals {
  return (client as unknown as { readonly connectionManager: Internals }).connectionManager;
}

// The error of a host name with several addresses has no message of its own.
function messageOf(thrown: unknown): string {
  if (thrown instanceof AggregateError) return thrown.errors.map(messageOf).join('; ');
  return thrown instanceof Error ? thrown.message || thrown.name : String(thrown);
}
