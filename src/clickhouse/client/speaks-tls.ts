/**
 * Whether a port speaks TLS, asked by beginning a handshake. Imports: Node.
 */
import { connect } from 'node:tls';
import { handshakeCode } from './connection-fault.js';

const LIMIT_MS = 2_000;

/** Never rejects. Nothing is sent but the beginning of a handshake, and no certificate is believed for anything. */
export function speaksTls(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, rejectUnauthorized: false });
    const limit = setTimeout(() => end(false), LIMIT_MS);
    const end = (does: boolean): void => {
      clearTimeout(limit);
      resolve(does);
      socket.destroy();
    };
    socket.once('secureConnect', () => end(true));
    // A server that refuses in TLS's own words speaks it.
    socket.once('error', (error: Error) => end(/^ERR_SSL_.*ALERT/.test(handshakeCode(error))));
  });
}
