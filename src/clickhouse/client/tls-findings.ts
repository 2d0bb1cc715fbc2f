/**
 * What a start should tell about TLS, though it goes on. Pure. Imports: nothing.
 */
import { certificateEndMs, type TlsOptions } from './tls.js';

interface TlsWarning {
  readonly level: 'warning';
  readonly what: string;
  readonly detail: string;
  readonly todo: string;
}

export function tlsWarnings(tls: TlsOptions = {}, nowMs: number = Date.now()): readonly TlsWarning[] {
  const endMs = certificateEndMs(tls);
  const told = (detail: string, todo: string): TlsWarning => ({ level: 'warning', what: 'TLS', detail, todo });
  return [
    ...(tls.insecureSkipVerify === true
      ? [
          told(
            'the certificate of ClickHouse is not verified: whoever stands between can read and change what is ' +
              'sent, the password included',
            'take out clickhouse.tls.insecureSkipVerify, and give the authority as clickhouse.tls.ca',
          ),
        ]
      : []),
    ...(endMs !== undefined && endMs < nowMs
      ? [told('our client certificate has expired', 'renew clickhouse.tls.cert')]
      : []),
  ];
}
