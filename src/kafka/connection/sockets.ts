/**
 * How a connection to a broker is opened: the one thing beneath kafkajs that a simulation
 * exchanges. Imports: Node.
 */
import { connect as connectPlain, isIP, type OnReadOpts, type Socket } from 'node:net';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';

export interface SocketTarget {
  readonly host: string;
  readonly port: number;
  /** Is given the bytes that come. */
  readonly onread: OnReadOpts;
  /** Undefined: a plain connection. */
  readonly ssl: ConnectionOptions | undefined;
}

/** Opens a socket, and calls `onConnect` once it is connected. */
export type OpenSocket = (target: SocketTarget, onConnect: () => void) => Socket;

export const openSocket: OpenSocket = ({ host, port, onread, ssl }, onConnect) =>
  ssl === undefined
    ? connectPlain({ host, port, onread }, onConnect)
    : connectTls({ host, port, ...{ onread }, ...(isIP(host) === 0 ? { servername: host } : {}), ...ssl }, onConnect);
