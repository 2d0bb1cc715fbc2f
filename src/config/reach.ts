/**
 * How ClickHouse is reached, as a configuration says it: the shape of it. What does not fit together the way to
 * ClickHouse checks itself (`addressFault`). Imports: clickhouse, zod.
 */
import { z } from 'zod';
import { encodings, sinkLimits } from '../clickhouse/options.js';
import { limited } from './numbers.js';

export const webAddress = z.url({ protocol: /^https?$/, error: 'expected an http:// or https:// address' });

/** Certificates and keys are PEM text: `${file:/path}` takes a file's. */
const tls = z.strictObject({
  ca: z.string().min(1).exactOptional(),
  cert: z.string().min(1).exactOptional(),
  key: z.string().min(1).exactOptional(),
  passphrase: z.string().exactOptional(),
  serverName: z.string().min(1).exactOptional(),
  certificateLogin: z.boolean().exactOptional(),
  insecureSkipVerify: z.boolean().exactOptional(),
});

const proxy = z.strictObject({
  url: webAddress,
  username: z.string().exactOptional(),
  password: z.string().exactOptional(),
  tunnel: z.boolean().exactOptional(),
});

/** Properties of `clickhouse`. */
export const reach = {
  tls: tls.exactOptional(),
  headers: z.record(z.string(), z.string()).exactOptional(),
  proxy: proxy.exactOptional(),
  ...limited(sinkLimits, 'connectTimeoutMs'),
  compression: z.enum(encodings).exactOptional(),
  answerCompression: z.enum(encodings).exactOptional(),
};
