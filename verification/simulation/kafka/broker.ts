// Imports: the cluster, the network, the bytes. One broker's end of each connection: it answers what was sent over one
// in order, one request after the other, unless the weather does something to the request or to its answer.
import { answerTo, apiName, isFlexible, isFlexibleHead, type Reply } from './answers.js';
import type { AnswerWriter } from './bytes.js';
import { RequestReader } from './bytes.js';
import type { VirtualClock, Owner } from './clock.js';
import { PORT, type BrokerState, type Cluster } from './cluster.js';
import type { Connection, Listener, Peer } from './network.js';
import type { Weather } from './weather.js';

export interface BrokersConfig {
  readonly clock: VirtualClock;
  readonly cluster: Cluster;
  readonly weather: Weather;
  /** Told of each request as it is taken up. */
  readonly asked: (api: string, broker: number, owner: Owner | undefined) => void;
  readonly reply: Omit<Reply, 'broker' | 'owner' | 'mute'>;
}

export class Brokers implements Listener {
  readonly #config: BrokersConfig;
  readonly #peers = new Set<BrokerPeer>();

  constructor(config: BrokersConfig) {
    this.#config = config;
  }

  accept(port: number, connection: Connection, owner: Owner | undefined): Peer | undefined | 'lost' {
    const { cluster, weather } = this.#config;
    const broker = cluster.brokers.find(({ id }) => PORT + id === port);
    if (broker?.isUp !== true) return weather.isBlackHole() ? 'lost' : undefined;
    // A frozen broker's kernel takes the connection.
    const peer = new BrokerPeer(this.#config, broker, connection, owner, () => this.#peers.delete(peer));
    this.#peers.add(peer);
    return peer;
  }

  /** Every connection to the broker breaks, or falls silent. */
  disconnect(id: number, how: 'reset' | 'end' | 'silent'): void {
    for (const peer of [...this.#peers]) if (peer.broker.id === id) peer.cut(how);
  }

  /** Between one process and all brokers. */
  isolate(owner: Owner, how: 'reset' | 'end' | 'silent'): void {
    for (const peer of [...this.#peers]) if (peer.owner === owner) peer.cut(how);
  }
}

class BrokerPeer implements Peer {
  readonly #waiting: Buffer[] = [];
  #isBusy = false;
  #mutedUntilMs = 0;

  constructor(
    private readonly config: BrokersConfig,
    readonly broker: BrokerState,
    private readonly connection: Connection,
    readonly owner: Owner | undefined,
    private readonly gone: () => void,
  ) {}

  request(bytes: Buffer): void {
    if (!this.broker.isUp || !this.connection.isOpen) return;
    if (this.config.clock.nowMs < this.#mutedUntilMs && !this.#isBusy)
      this.config.reply.counters.count('asked while muted');
    this.#waiting.push(bytes);
    this.#next();
  }

  /** A frozen broker ends its half when it goes on. */
  closed(): void {
    this.#waiting.length = 0;
    this.gone();
    this.config.clock.after(Math.max(0, this.broker.frozenUntilMs - this.config.clock.nowMs), undefined, () =>
      this.connection.close('end'),
    );
  }

  cut(how: 'reset' | 'end' | 'silent'): void {
    if (how === 'silent') this.connection.isSilent = true;
    else this.connection.close(how);
    this.gone();
  }

  #next(): void {
    if (this.#isBusy || this.#waiting.length === 0) return;
    const { clock, cluster } = this.config;
    const waitMs = Math.max(this.broker.frozenUntilMs, this.#mutedUntilMs) - clock.nowMs;
    this.#isBusy = true;
    clock.after(Math.max(0, waitMs), undefined, () => {
      this.#isBusy = false;
      if (!this.broker.isUp) return;
      if (!cluster.isServing(this.broker) || clock.nowMs < this.#mutedUntilMs) return this.#next();
      const bytes = this.#waiting.shift();
      if (bytes !== undefined) this.#take(bytes);
    });
  }

  #take(bytes: Buffer): void {
    const { clock, weather, reply, asked } = this.config;
    const request = new RequestReader(bytes, isFlexible);
    const api = apiName(request.apiKey);
    const fate = weather.fateOf(api);
    asked(api, this.broker.id, this.owner);
    if (fate.kind !== 'none') reply.counters.count(`fate ${fate.kind}`);
    if (fate.kind === 'cut before') return this.cut('reset');
    if (fate.kind === 'silent before') return this.cut('silent');
    this.#isBusy = true;
    const answer = (body: AnswerWriter): void => {
      if (fate.kind === 'cut after') this.cut('reset');
      else if (fate.kind === 'silent after') this.cut('silent');
      else this.connection.send(body.answer(request.correlation, isFlexibleHead(request.apiKey, request.version)));
      this.#isBusy = false;
      this.#next();
    };
    const take = (): void => {
      if (!this.broker.isUp) return;
      answerTo(
        request,
        api,
        { ...reply, broker: this.broker.id, owner: this.owner, mute: (ms) => (this.#mutedUntilMs = clock.nowMs + ms) },
        answer,
      );
    };
    // The client hears nothing, and what it asked for is done much later.
    if (fate.kind === 'late') this.cut('reset');
    clock.after(fate.kind === 'late' || fate.kind === 'slow' ? fate.ms : reply.serviceMs(api), undefined, take);
  }
}
