// A loopback TCP proxy between a client and a server, for faults that a network makes: lost replies, late requests,
// silence, cut connections. Knows nothing of the protocol that passes.
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

export interface TcpProxyConfig {
  /** `host:port` of the server. */
  readonly to: string;
  /** The proxy's own port. @default one that is free */
  readonly port?: number;
}

export class TcpProxy {
  readonly #server = createServer((client) => this.#accept(client));
  readonly #links = new Set<Link>();
  readonly #to: { readonly host: string; readonly port: number };
  #address = '';
  #delayMs = 0;
  #isDown = false;
  #isPaused = false;
  #isRefusing = false;
  #dropsReplies = false;
  #droppedBytes = 0;
  #damage: { readonly find: Buffer; times: number } | undefined;

  static async start({ to, port = 0 }: TcpProxyConfig): Promise<TcpProxy> {
    const proxy = new TcpProxy(to);
    proxy.#server.listen(port, '127.0.0.1');
    await once(proxy.#server, 'listening');
    proxy.#address = `127.0.0.1:${(proxy.#server.address() as AddressInfo).port}`;
    return proxy;
  }

  private constructor(to: string) {
    const colon = to.lastIndexOf(':');
    this.#to = { host: to.slice(0, colon), port: Number(to.slice(colon + 1)) };
  }

  /** `host:port` to give to the client. */
  get address(): string {
    return this.#address;
  }

  /** Connections whose client is there. */
  get connections(): number {
    return [...this.#links].filter(({ client }) => !client.destroyed).length;
  }

  /**
   * From now on the server gets every request and no reply comes back, on present and on new connections. Present
   * ones may still pass the next `after` pieces: replies, when the client sends its requests one by one.
   */
  dropReplies({ after = 0 } = {}): void {
    this.#dropsReplies = true;
    for (const { replies } of this.#links) replies.dropAfter = after;
  }

  /** In the next replies that hold these bytes the last bit of them is flipped on the way, so many times. */
  damageReplies(find: Buffer, times: number): void {
    this.#damage = { find, times };
  }

  /** How often that is still to be done. */
  get damagesLeft(): number {
    return this.#damage?.times ?? 0;
  }

  #damaged(bytes: Buffer): Buffer {
    const damage = this.#damage;
    const at = damage === undefined || damage.times === 0 ? -1 : bytes.indexOf(damage.find);
    if (damage === undefined || at < 0) return bytes;
    damage.times--;
    const flipped = Buffer.from(bytes);
    flipped[at + damage.find.length - 1]! ^= 1;
    return flipped;
  }

  /** Bytes of replies that were dropped since the start. */
  get droppedBytes(): number {
    return this.#droppedBytes;
  }

  /**
   * Requests on the present connections are held, even when their client has gone meanwhile, until
   * `releaseRequests`. New connections are not touched.
   */
  holdRequests(): void {
    for (const { requests } of this.#links) requests.held = true;
  }

  /** Bytes of requests that are on their way. */
  get heldBytes(): number {
    return [...this.#links].reduce((sum, { requests }) => sum + requests.bytes, 0);
  }

  /** What was held goes to the server now, however late. */
  releaseRequests(): void {
    for (const { client, server, requests } of this.#links) {
      requests.held = false;
      requests.pass();
      // After a while, so that the server takes the requests before it sees their connection end.
      if (client.destroyed) setTimeout(() => server.end(), 500).unref();
    }
  }

  /** Silence: nothing passes in either direction; connections stay open and new ones are accepted. */
  pause(): void {
    this.#isPaused = true;
    for (const { requests, replies } of this.#links) requests.held = replies.held = true;
  }

  /** What passes from now on takes this long in each direction. */
  delay(ms: number): void {
    this.#delayMs = ms;
  }

  /** Every connection breaks; new ones are accepted. Those with held requests keep their way to the server. */
  cut(): void {
    for (const { client } of this.#links) client.destroy();
  }

  /** Every connection breaks, and new ones break at once. */
  down(): void {
    this.#isDown = true;
    this.cut();
  }

  /** Every connection breaks, and new ones are not even made: who tries knows that nothing was sent. */
  refuse(): void {
    this.#isRefusing = true;
    this.#server.close();
    this.cut();
  }

  /** Undoes everything above: what was held passes now, what was dropped is gone. */
  heal(): void {
    this.#isDown = this.#isPaused = this.#dropsReplies = false;
    this.#delayMs = 0;
    this.#damage = undefined;
    if (this.#isRefusing) this.#server.listen(Number(this.#address.split(':')[1]), '127.0.0.1');
    this.#isRefusing = false;
    for (const { replies } of this.#links) {
      replies.held = false;
      replies.dropAfter = Infinity;
      replies.pass();
    }
    this.releaseRequests();
  }

  async stop(): Promise<void> {
    for (const { client, server } of this.#links) {
      client.destroy();
      server.destroy();
    }
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }

  #accept(client: Socket): void {
    client.on('error', () => undefined);
    if (this.#isDown) {
      client.resetAndDestroy();
      return;
    }
    const server = connect({ ...this.#to, noDelay: true });
    server.on('error', () => undefined);
    client.setNoDelay();
    const link: Link = { client, server, requests: new Lane(server), replies: new Lane(client) };
    link.requests.held = link.replies.held = this.#isPaused;
    if (this.#dropsReplies) link.replies.dropAfter = 0;
    this.#links.add(link);
    client.on('data', (bytes) => link.requests.push(bytes, this.#delayMs));
    server.on('data', (bytes) => {
      if (!link.replies.push(this.#damaged(bytes), this.#delayMs)) this.#droppedBytes += bytes.length;
    });
    client.on('close', () => {
      if (link.requests.bytes === 0) server.destroy();
    });
    server.on('close', () => {
      this.#links.delete(link);
      client.destroy();
    });
  }
}

interface Link {
  readonly client: Socket;
  readonly server: Socket;
  readonly requests: Lane;
  readonly replies: Lane;
}

/** One direction of one connection: keeps the order whatever the delays. */
class Lane {
  held = false;
  /** Pieces that still pass. */
  dropAfter = Infinity;
  readonly #to: Socket;
  readonly #queue: { readonly bytes: Buffer; readonly dueMs: number }[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(to: Socket) {
    this.#to = to;
  }

  get bytes(): number {
    return this.#queue.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  /** False when the piece was dropped. */
  push(bytes: Buffer, delayMs: number): boolean {
    if (this.dropAfter <= 0) return false;
    this.dropAfter--;
    this.#queue.push({ bytes, dueMs: performance.now() + delayMs });
    this.pass();
    return true;
  }

  pass(): void {
    while (!this.held && this.#queue[0] !== undefined) {
      const waitMs = this.#queue[0].dueMs - performance.now();
      if (waitMs > 0) {
        this.#timer ??= setTimeout(() => {
          this.#timer = undefined;
          this.pass();
        }, waitMs);
        return;
      }
      this.#to.write(this.#queue.shift()!.bytes);
    }
  }
}
