/**
 * The mistake behind a connection that fails, by the code Node gives: what it is, and what to do. Pure.
 * Imports: nothing.
 */
import { ProxyFailure } from './proxy.js';

export interface ConnectionFault {
  readonly what: string;
  readonly hint: string;
}

const untrusted: ConnectionFault = {
  what: 'its certificate is not from an authority that is trusted here',
  hint: 'give the certificate of the authority as clickhouse.tls.ca; a proxy on the way that reads TLS has one of its own',
};
const clientRefused: ConnectionFault = {
  what: 'it does not take our client certificate',
  hint: 'clickhouse.tls.cert must come from an authority that this server takes, and not be expired or revoked',
};
const clientWanted: ConnectionFault = {
  what: 'it wants a client certificate',
  hint: 'give clickhouse.tls.cert and clickhouse.tls.key',
};
const notTls: ConnectionFault = {
  what: 'this port does not speak TLS',
  hint: 'write http://, or give the port for TLS (8443)',
};
const byCode: Readonly<Record<string, ConnectionFault>> = {
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  DEPTH_ZERO_SELF_SIGNED_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
  CERT_SIGNATURE_FAILURE: untrusted,
  CERT_UNTRUSTED: untrusted,
  CERT_REJECTED: untrusted,
  INVALID_CA: untrusted,
  CERT_HAS_EXPIRED: {
    what: 'its certificate, or one it rests on, has expired',
    hint: 'renew it at the server; where it is right, look at the clock of this machine and at clickhouse.tls.ca',
  },
  CERT_NOT_YET_VALID: {
    what: 'its certificate is not valid yet',
    hint: 'look at the clocks of this machine and of the server',
  },
  CERT_REVOKED: { what: 'its certificate was revoked', hint: 'renew it at the server' },
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: clientWanted,
  // What TLS 1.2 says for it, among other things.
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: {
    what: 'it broke the handshake off',
    hint: 'it may want a client certificate (clickhouse.tls.cert and .key), or another version of TLS',
  },
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: clientRefused,
  ERR_SSL_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE: clientRefused,
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED: clientRefused,
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED: clientRefused,
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN: clientRefused,
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: clientRefused,
  ERR_SSL_TLSV1_ALERT_DECRYPT_ERROR: clientRefused,
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: {
    what: 'it speaks another version of TLS',
    hint: 'let it speak TLS 1.2 or 1.3',
  },
  ERR_SSL_TLSV1_UNRECOGNIZED_NAME: {
    what: 'it does not know the name it was asked for',
    hint: 'give the name it has as clickhouse.tls.serverName',
  },
  ERR_SSL_WRONG_VERSION_NUMBER: notTls,
  ERR_SSL_PACKET_LENGTH_TOO_LONG: notTls,
  ERR_SSL_RECORD_LAYER_FAILURE: notTls,
};

/** Undefined: nothing is known but what Node says. */
export function connectionFault(error: unknown): ConnectionFault | undefined {
  if (error instanceof ProxyFailure) return { what: error.message, hint: error.hint };
  if (!(error instanceof Error)) return undefined;
  const code = handshakeCode(error);
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID' || code === 'HOSTNAME_MISMATCH') return otherName(error);
  if (code.startsWith('HPE_') && beginsTls((error as { rawPacket?: unknown }).rawPacket)) return portOfTls;
  return byCode[code];
}

/** Of a handshake that fails while Node writes, OpenSSL's reason stands in the message only. */
export function handshakeCode(error: Error): string {
  const { code = '' } = error as NodeJS.ErrnoException;
  const reason = code === 'EPROTO' ? /:SSL routines:[^:]*:([^:]+):/.exec(error.message)?.[1] : undefined;
  return reason === undefined ? code : `ERR_SSL_${reason.toUpperCase().replaceAll(' ', '_')}`;
}

export const portOfTls: ConnectionFault = {
  what: 'this port speaks TLS, and was asked without',
  hint: 'write https://, or give the port without TLS (8123)',
};

const MAX_NAMES_LENGTH = 200;

function otherName(error: Error): ConnectionFault {
  const { host, cert } = error as {
    readonly host?: string;
    readonly cert?: { readonly subjectaltname?: string; readonly subject?: { readonly CN?: string } };
  };
  const names = (cert?.subjectaltname ?? `CN:${cert?.subject?.CN ?? '?'}`).slice(0, MAX_NAMES_LENGTH);
  return {
    what: `its certificate is not for ${host ?? 'this name'}, but for ${names}`,
    hint: 'write such a name in clickhouse.url, or give it as clickhouse.tls.serverName',
  };
}

/** An alert of TLS: type 21, version 3. */
function beginsTls(bytes: unknown): boolean {
  return Buffer.isBuffer(bytes) && bytes[0] === 21 && bytes[1] === 3;
}
