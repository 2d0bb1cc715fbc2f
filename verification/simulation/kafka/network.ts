// Imports: Node's events. Connections between processes and brokers: bytes take time, come in pieces and in order, and a
// connection breaks, falls silent or is refused.
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import type { OpenSocket } from '../../../src/kafka/connection/sockets.js';
import type { Owner, VirtualClock } from './clock.js';

/** The broker's end of a connection. */
export interface Peer {
  /** One whole request, without its length. */
  request(bytes: Buffer): void;
  closed(): void;
}

export interface Listener {
  /** Undefined: the connection is refused. `lost`: nobody answers at all. */
  accept(port: number, connection: Connection, owner: Owner | undefined): Peer | undefined | 'lost';
}

export interface Network {
  readonly clock: VirtualClock;
  readonly latencyMs: () => number;
  readonly listener: Listener;
}

/** A connection as the broker sees it. */
export class Connection {
  isOpen = true;
  /** Nothing that is sent arrives any more, in either direction; nobody is told. */
  isSilent = false;
  readonly #network: Network;
  readonly #client: ClientSocket;
  #lastArrivalMs = 0;

  constructor(network: Network, client: ClientSocket) {
    this.#network = network;
    this.#client = client;
  }

  get isGone(): boolean {
    return !this.isOpen;
  }

  send(bytes: Buffer): void {
    if (this.isOpen && !this.isSilent) this.#arrive(() => this.#client.receive(bytes));
  }

  /** Reset, or ended in good order. */
  close(how: 'reset' | 'end'): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    if (!this.isSilent) this.#arrive(() => this.#client.peerClosed(how));
  }

  #arrive(run: () => void): void {
    const { clock, latencyMs } = this.#network;
    // Never before what was sent earlier.
    this.#lastArrivalMs = Math.max(this.#lastArrivalMs, clock.nowMs + latencyMs());
    clock.after(this.#lastArrivalMs - clock.nowMs, this.#client.owner, run);
  }
}

/** As much of a socket as is used of one, towards kafkajs and us. */
export class ClientSocket extends EventEmitter {
  destroyed = false;
  writableEnded = false;
  readonly owner: Owner | undefined;
  readonly #network: Network;
  readonly #onread: { buffer: Buffer | (() => Buffer); callback: (read: number, buffer: Buffer) => unknown };
  readonly #connection: Connection;
  #peer: Peer | undefined;
  #sent = Buffer.alloc(0);
  #lastArrivalMs = 0;

  constructor(
    network: Network,
    { port, onread }: { readonly port: number; readonly onread: unknown },
    onConnect: () => void,
  ) {
    super();
    this.#network = network;
    this.#onread = onread as never;
    this.owner = network.clock.current;
    this.#connection = new Connection(network, this);
    network.clock.after(network.latencyMs(), undefined, () => {
      const peer = network.listener.accept(port, this.#connection, this.owner);
      if (peer === 'lost') return;
      network.clock.after(network.latencyMs(), this.owner, () => {
        if (this.destroyed) return peer?.closed();
        if (peer === undefined)
          return this.destroy(Object.assign(new Error(`connect ECONNREFUSED ${port}`), { code: 'ECONNREFUSED' }));
        this.#peer = peer;
        this.emit('connect');
        onConnect();
        if (this.writableEnded) this.#toPeer((opened) => opened.closed());
      });
    });
  }

  setKeepAlive = (): this => this;
  setNoDelay = (): this => this;
  unref = (): this => this;
  ref = (): this => this;

  write(bytes: Buffer): boolean {
    // What a process that was killed would still like to say, it cannot.
    if (this.destroyed || this.owner?.isDead === true) return false;
    // As Node has it: told where it was ended, and not a word where it was destroyed.
    if (this.writableEnded)
      return (this.destroy(Object.assign(new Error('write after end'), { code: 'ERR_STREAM_WRITE_AFTER_END' })), false);
    this.#sent = Buffer.concat([this.#sent, bytes]);
    while (this.#sent.length >= 4 && this.#sent.length >= 4 + this.#sent.readInt32BE(0)) {
      const request = this.#sent.subarray(4, 4 + this.#sent.readInt32BE(0));
      this.#sent = this.#sent.subarray(4 + request.length);
      this.#toPeer((peer) => peer.request(request));
    }
    return true;
  }

  end(): this {
    if (this.writableEnded) return this;
    this.writableEnded = true;
    // What is being connected is ended once it is; the broker ends its half when it has heard of it.
    this.#toPeer((peer) => peer.closed());
    return this;
  }

  destroy(error?: Error): this {
    if (this.destroyed) return this;
    this.destroyed = true;
    if (!this.writableEnded) this.#toPeer((peer) => peer.closed());
    this.#connection.isOpen = false;
    queueMicrotask(() => {
      if (error !== undefined) this.emit('error', error);
      this.emit('close', error !== undefined);
    });
    return this;
  }

  /** What came, in pieces as a network makes them. */
  receive(bytes: Buffer): void {
    for (let at = 0; at < bytes.length && !this.destroyed;) {
      const { buffer } = this.#onread;
      const room = typeof buffer === 'function' ? buffer() : buffer;
      const length = Math.min(room.length, bytes.length - at);
      bytes.copy(room, 0, at, at + length);
      this.#onread.callback(length, room);
      at += length;
    }
  }

  peerClosed(how: 'reset' | 'end'): void {
    if (this.destroyed) return;
    if (how === 'reset') return void this.destroy(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }));
    this.emit('end');
    this.destroy();
  }

  #toPeer(act: (peer: Peer) => void): void {
    const { clock, latencyMs } = this.#network;
    const peer = this.#peer;
    if (peer === undefined || this.#connection.isSilent) return;
    this.#lastArrivalMs = Math.max(this.#lastArrivalMs, clock.nowMs + latencyMs());
    clock.after(this.#lastArrivalMs - clock.nowMs, undefined, () => {
      if (!this.#connection.isSilent) act(peer);
    });
  }
}

export function openOver(network: Network): OpenSocket {
  return ({ port, onread }, onConnect) => new ClientSocket(network, { port, onread }, onConnect) as unknown as Socket;
}
