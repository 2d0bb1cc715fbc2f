/**
 * Imports: errors, and what the way to ClickHouse itself checks. How ClickHouse is reached, as a configuration says it.
 */
import { z } from 'zod';
import { addressFault, type ClickHouseAddress } from '../clickhouse/client/connection.js';
import { type Encoding, encodingFault } from '../clickhouse/client/sending.js';
import { IngestError } from '../errors.js';
import { durationMs } from './numbers.js';

export const webAddress = z.url({ protocol: /^https?$/, error: 'expected an http:// or https:// address' });
const compression = z.enum(['none', 'gzip', 'zstd']);

/** Certificates and keys are PEM text: `${file:/path}` takes a file's. */
const tls = z.strictObject({
  /** Trusted in place of the authorities that Node brings. */
  ca: z.string().min(1).exactOptional(),
  cert: z.string().min(1).exactOptional(),
  key: z.string().min(1).exactOptional(),
  passphrase: z.string().exactOptional(),
  /** The name that the server's certificate must have, where it is not the url's. */
  serverName: z.string().min(1).exactOptional(),
  /** The certificate says who the user is: no password is sent. */
  certificateLogin: z.boolean().exactOptional(),
  insecureSkipVerify: z.boolean().exactOptional(),
});

const proxy = z.strictObject({
  url: webAddress,
  username: z.string().exactOptional(),
  password: z.string().exactOptional(),
  /** CONNECT also for an `http:` ClickHouse. */
  tunnel: z.boolean().exactOptional(),
});

/** Properties of `clickhouse`. */
export const reach = {
  tls: tls.exactOptional(),
  /** Sent with every request, for gateways. */
  headers: z.record(z.string(), z.string()).exactOptional(),
  proxy: proxy.exactOptional(),
  /** How long a connection may take to come about, proxy and TLS included. */
  connectTimeoutMs: durationMs.exactOptional(),
  /** Of the rows on their way. */
  compression: compression.exactOptional(),
  /** Of queries' answers. */
  answerCompression: compression.exactOptional(),
};

interface Compressions {
  readonly compression?: 'none' | Encoding;
  readonly answerCompression?: 'none' | Encoding;
}

/** What `clickhouse` says of the way there, its certificates included. */
export function checkReach(clickhouse: ClickHouseAddress & Compressions): void {
  const fault = addressFault(clickhouse);
  if (fault !== undefined)
    throw new IngestError(
      'KCR_CONFIG',
      `The configuration cannot be used:\n  clickhouse.${fault.option}: ${fault.what}`,
      { hint: fault.hint },
    );
  for (const name of ['compression', 'answerCompression'] as const) {
    const why = encodingFault(clickhouse[name] ?? 'none');
    if (why !== undefined)
      throw new IngestError('KCR_CONFIG', `The configuration cannot be used:\n  clickhouse.${name}: ${why}`);
  }
}
