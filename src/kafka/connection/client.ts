/**
 * Makes the kafkajs client, routes its logs, and keeps hold of its sockets, since kafkajs waits for answers
 * before it closes a connection and a dead broker gives none. Imports: Node, kafka, kafkajs.
 */
import type { Socket } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import { Kafka, logLevel, type ISocketFactory, type KafkaConfig, type logCreator } from 'kafkajs';
import { OpenRequests } from './answers.js';
import { framesTo } from './frames.js';
import type { ClientSettings, KafkaLog } from '../options.js';
import { calmRequestQueues } from './request-queue.js';
import { openSocket } from './sockets.js';

const KEEP_ALIVE_MS = 30_000;

export interface KafkaClient {
  readonly kafka: Kafka;
  /** Cuts all connections: what waits on them fails at once. */
  readonly cut: () => void;
  /** Cuts all, for good: kafkajs goes on with a connect that is under way, and nobody would close what it opens. */
  readonly end: () => void;
}

export function createClient(settings: ClientSettings): KafkaClient {
  calmRequestQueues();
  const sockets = new Set<Socket>();
  let isEnded = false;
  const { brokers, addressOf } = seeds(settings.brokers);
  const open = settings.openSocket ?? openSocket;
  const socketFactory: ISocketFactory = ({ host: name, port, ssl, onConnect }) => {
    const host = addressOf(name);
    const requests = new OpenRequests();
    const onread = framesTo({
      frame: (bytes) => deliver(socket, requests, bytes),
      broken: (error) => void socket.destroy(error),
    });
    const socket = open({ host, port, onread, ssl: secured(ssl) }, onConnect);
    const write = socket.write.bind(socket) as (...args: unknown[]) => boolean;
    socket.write = (...args: unknown[]) => {
      if (Buffer.isBuffer(args[0])) requests.sent(args[0]);
      return write(...args);
    };
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.setNoDelay(true);
    sockets.add(socket);
    // A little later, since kafkajs listens to it only when it has it.
    if (isEnded) setImmediate(() => socket.destroy(new Error('the client has ended')));
    socket.once('close', () => {
      sockets.delete(socket);
      // kafkajs unrefs a closed socket again and again; Node remembers each call until a 'connect' that never comes.
      socket.unref = () => socket;
    });
    return socket;
  };
  const config: KafkaConfig = {
    brokers,
    clientId: settings.clientId,
    ssl: settings.ssl,
    connectionTimeout: settings.connectTimeoutMs,
    authenticationTimeout: settings.connectTimeoutMs,
    requestTimeout: settings.requestTimeoutMs,
    // Long waits are ours (wait.ts): here just enough attempts to go once through the listed brokers.
    retry: { initialRetryTime: 50, maxRetryTime: 500, retries: Math.max(2, settings.brokers.length) },
    socketFactory,
    logLevel: logLevel.INFO,
    logCreator: logTo(settings.log),
  };
  // A copy: kafkajs writes its authenticator into the object.
  if (settings.sasl !== undefined) Object.assign(config, { sasl: { ...settings.sasl } });
  const cut = (): void => {
    for (const socket of sockets) {
      // kafkajs listens to 'error', not to 'close'; what it has ended by itself it need not hear of.
      if (socket.writableEnded) socket.destroy();
      else socket.destroy(new Error('connection cut by the client'));
    }
  };
  const end = (): void => {
    isEnded = true;
    cut();
  };
  return { kafka: new Kafka(config), cut, end };
}

/** kafkajs hands `true` on as it is given it. */
function secured(ssl: ConnectionOptions | boolean | undefined): ConnectionOptions | undefined {
  return typeof ssl === 'boolean' ? (ssl ? {} : undefined) : ssl;
}

/**
 * kafkajs listens to 'data', which Node does not emit beside `onread`. What it throws at an answer ends that
 * connection.
 */
function deliver(socket: Socket, requests: OpenRequests, answer: Buffer): void {
  if (socket.destroyed) return;
  const wrong = requests.answered(answer);
  if (wrong !== undefined) return void socket.destroy(wrong);
  try {
    socket.emit('data', answer);
  } catch (thrown) {
    socket.destroy(thrown instanceof Error ? thrown : new Error(String(thrown)));
  }
}

/**
 * kafkajs takes what is before the first colon for the host: an IPv6 address has another name until it is connected to.
 */
function seeds(listed: readonly string[]): {
  readonly brokers: string[];
  readonly addressOf: (name: string) => string;
} {
  const addresses = new Map<string, string>();
  const brokers = listed.map((broker) => {
    const [, address, port] = /^\[(.*)\]:(\d+)$/.exec(broker) ?? [];
    if (address === undefined || port === undefined) return broker;
    const name = `${address.replaceAll(':', '-')}.ipv6`;
    addresses.set(name, address);
    return `${name}:${port}`;
  });
  return { brokers, addressOf: (name) => addresses.get(name) ?? name };
}

/** All of it is detail: what kafkajs calls an error is a retry to us, of which we tell in our own words. */
function logTo(log: KafkaLog): logCreator {
  return () =>
    ({ namespace, label, log: { message, ...fields } }) =>
      log('debug', `kafkajs ${label} ${namespace}: ${message}`, fields);
}
