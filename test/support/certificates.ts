// Certificates for tests, made by openssl: an authority, and what it issues.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Issued {
  readonly cert: string;
  readonly key: string;
}

export interface IssueOptions {
  /** @default localhost and 127.0.0.1 */
  readonly names?: string;
  /** From now; below 0 for one that has expired. @default 2 */
  readonly days?: number;
  /** Of the key. */
  readonly passphrase?: string;
}

export interface Authority {
  readonly ca: string;
  issue(options?: IssueOptions): Issued;
}

const openssl = (dir: string, ...args: readonly string[]): void =>
  void execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' });
const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];

/** Its files are gone when it is made: what it issues is text. */
export function authority(name = 'test authority'): Authority {
  const dir = mkdtempSync(join(tmpdir(), 'certificates-'));
  process.once('exit', () => rmSync(dir, { recursive: true, force: true }));
  const read = (file: string): string => readFileSync(join(dir, file), 'utf8');
  openssl(
    dir,
    'req',
    '-x509',
    ...ec,
    '-nodes',
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
    '-days',
    '2',
    '-subj',
    `/CN=${name}`,
  );
  let serial = 0;
  return {
    ca: read('ca.pem'),
    issue: ({ names = 'DNS:localhost,IP:127.0.0.1', days = 2, passphrase } = {}) => {
      const [key, request, cert] = [`${++serial}.key`, `${serial}.csr`, `${serial}.pem`];
      writeFileSync(join(dir, 'extensions'), `subjectAltName=${names}\n`);
      openssl(
        dir,
        'req',
        ...ec,
        ...(passphrase === undefined ? ['-nodes'] : ['-passout', `pass:${passphrase}`]),
        '-keyout',
        key,
        '-out',
        request,
        '-subj',
        '/CN=issued',
      );
      openssl(
        dir,
        'x509',
        '-req',
        '-in',
        request,
        '-CA',
        'ca.pem',
        '-CAkey',
        'ca.key',
        '-set_serial',
        String(serial),
        '-days',
        String(days),
        '-extfile',
        'extensions',
        '-out',
        cert,
      );
      return { cert: read(cert), key: read(key) };
    },
  };
}
