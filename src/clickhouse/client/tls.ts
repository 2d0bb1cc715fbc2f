/**
 * What a user says about TLS, whether it can be used, and how Node takes it. Imports: Node.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { type SecureContextOptions, rootCertificates } from 'node:tls';

/** Certificates and keys are PEM text, not paths. */
export interface TlsOptions {
  /** Trusted in place of the authorities that Node brings; one text may hold several. @default Node's own */
  readonly ca?: string;
  /** Shown to a server that wants one; those that lead to its authority may follow in the same text. */
  readonly cert?: string;
  /** Of `cert`. */
  readonly key?: string;
  /** Of `key`. */
  readonly passphrase?: string;
  /** The name that the server's certificate must have, where it is not the url's. Also sent as SNI. */
  readonly serverName?: string;
  /**
   * `cert` says who the user is, as for a user `IDENTIFIED WITH ssl_certificate`: no password is sent. @default false
   */
  readonly certificateLogin?: boolean;
  /** Takes any certificate, so whoever stands between can read and change what is sent. @default false */
  readonly insecureSkipVerify?: boolean;
}

/** What cannot be used, by the option's name, and what to do about it. Never shows a value. */
export interface OptionFault {
  readonly option: string;
  readonly what: string;
  readonly hint: string;
}

const PEM_HINT = 'give the text itself, from "-----BEGIN" on; of a file by ${file:/path}';

export function tlsFault(tls: TlsOptions): OptionFault | undefined {
  const { cert, key, passphrase, certificateLogin = false, insecureSkipVerify = false, ca } = tls;
  if (cert !== undefined && key === undefined)
    return { option: 'tls.key', what: 'missing beside tls.cert', hint: 'give the private key of the certificate' };
  if (key !== undefined && cert === undefined)
    return { option: 'tls.cert', what: 'missing beside tls.key', hint: 'give the certificate of the key' };
  if (passphrase !== undefined && key === undefined)
    return {
      option: 'tls.passphrase',
      what: 'there is no tls.key that it could open',
      hint: 'give the key, or take it out',
    };
  if (certificateLogin && cert === undefined)
    return {
      option: 'tls.certificateLogin',
      what: 'there is no tls.cert to log in with',
      hint: 'give tls.cert and tls.key',
    };
  if (insecureSkipVerify && ca !== undefined)
    return {
      option: 'tls.insecureSkipVerify',
      what: 'with it tls.ca is not looked at',
      hint: 'take one of the two out',
    };
  return caFault(ca) ?? (cert === undefined ? undefined : pairFault(cert, key ?? '', passphrase));
}

function caFault(ca: string | undefined): OptionFault | undefined {
  return ca === undefined || certificatesOf(ca) !== undefined
    ? undefined
    : { option: 'tls.ca', what: 'expected certificates in PEM', hint: PEM_HINT };
}

function pairFault(cert: string, key: string, passphrase: string | undefined): OptionFault | undefined {
  const [leaf] = certificatesOf(cert) ?? [];
  if (leaf === undefined) return { option: 'tls.cert', what: 'expected a certificate in PEM', hint: PEM_HINT };
  if (!key.includes('-----BEGIN')) return { option: 'tls.key', what: 'expected a private key in PEM', hint: PEM_HINT };
  const opened = privateKey(key, passphrase);
  if (opened === undefined) {
    const hint = passphrase === undefined ? 'give tls.passphrase where it is encrypted' : 'look at tls.passphrase';
    return { option: 'tls.key', what: 'the private key cannot be read', hint };
  }
  return leaf.checkPrivateKey(opened)
    ? undefined
    : {
        option: 'tls.key',
        what: 'it is not the key of tls.cert',
        hint: 'the certificate that was issued for this key comes first in tls.cert',
      };
}

function privateKey(key: string, passphrase: string | undefined): KeyObject | undefined {
  try {
    return createPrivateKey({ key, ...(passphrase === undefined ? {} : { passphrase }) });
  } catch {
    return undefined;
  }
}

/** Undefined where there is none, or one that cannot be read. */
function certificatesOf(pem: string): readonly X509Certificate[] | undefined {
  const found = pem.match(
    /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[^-]*-----END (?:TRUSTED |X509 )?CERTIFICATE-----/g,
  );
  try {
    return found?.map((one) => new X509Certificate(one));
  } catch {
    return undefined;
  }
}

/** When the client's certificate ends, milliseconds since the epoch; undefined without one. */
export function certificateEndMs({ cert = '' }: TlsOptions): number | undefined {
  const [leaf] = certificatesOf(cert) ?? [];
  return leaf === undefined ? undefined : Date.parse(leaf.validTo);
}

interface ConnectTls extends SecureContextOptions {
  readonly servername?: string;
  readonly rejectUnauthorized?: boolean;
}

/** For `tls.connect` and agents. */
export function connectTls({ ca, cert, key, passphrase, serverName, insecureSkipVerify }: TlsOptions): ConnectTls {
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(passphrase === undefined ? {} : { passphrase }),
    ...(serverName === undefined ? {} : { servername: serverName }),
    ...(insecureSkipVerify === true ? { rejectUnauthorized: false } : {}),
  };
}

/** To a proxy, which is another server: its certificate may come from our authority as well as from a public one. */
export function proxyTls({ ca, insecureSkipVerify }: TlsOptions): ConnectTls {
  return {
    ...(ca === undefined ? {} : { ca: [...rootCertificates, ca] }),
    ...(insecureSkipVerify === true ? { rejectUnauthorized: false } : {}),
  };
}
