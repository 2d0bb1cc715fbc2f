// What deploy/ sets up drains before it is killed, is asked where it answers, and has no rights that it does not need.
// No container engine is needed: this looks at the files.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { checkConfig, type CheckedConfig } from '../../src/config/config.js';
import { sourceSettings } from '../../src/kafka/options.js';

const root = new URL('../../', import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, root), 'utf8');
const packageJson = JSON.parse(read('package.json')) as { bin: Record<string, string>; version: string };

/** What a process takes at most from SIGTERM to its end, when the configuration does not say. */
const { drainTimeoutMs } = sourceSettings({ brokers: ['b:1'], topics: ['t'], groupId: 'g' });
const DRAIN_SECONDS = (drainTimeoutMs + 5_000) / 1_000;

interface Probe {
  readonly httpGet: { readonly path: string; readonly port: string };
}
interface Deployment {
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly terminationGracePeriodSeconds: number;
        readonly securityContext: { readonly runAsNonRoot: boolean };
        readonly containers: readonly {
          readonly image: string;
          readonly args: readonly string[];
          readonly securityContext: Readonly<Record<string, unknown>>;
          readonly livenessProbe: Probe;
          readonly readinessProbe: Probe;
          readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
        }[];
      };
    };
  };
}

const manifests = parseAllDocuments(read('deploy/kubernetes/kafka-clickhouse-rx.yaml')).map(
  (document) => document.toJS() as { readonly kind: string },
);
const ofKind = <T>(kind: string): T => manifests.find((each) => each.kind === kind) as T;

interface Service {
  readonly stop_grace_period: string;
  readonly read_only: boolean;
  readonly volumes: readonly string[];
}
const { ingest } = (parse(read('deploy/compose/compose.yaml')) as { services: Record<string, Service> }).services;

function configured(text: string, files: Readonly<Record<string, string>> = {}): CheckedConfig {
  return checkConfig(parse(text), { CLICKHOUSE_PASSWORD: 'secret' }, (path) => files[path] ?? expect.fail(path));
}

describe('Kubernetes', () => {
  const { data } = ofKind<{ readonly data: { readonly 'config.yaml': string } }>('ConfigMap');
  const { spec } = ofKind<Deployment>('Deployment').spec.template;
  const container = spec.containers[0]!;

  test('the configuration is one that the program takes, and reads the password from the mounted secret', () => {
    const [secrets] = container.volumeMounts.filter(({ name }) => name === 'secrets');
    const config = configured(data['config.yaml'], { [`${secrets!.mountPath}/clickhouse-password`]: 'of the secret' });
    expect(config.clickhouse.password).toBe('of the secret');
  });

  test('a process that drains is not killed', () => {
    expect(spec.terminationGracePeriodSeconds).toBeGreaterThan(DRAIN_SECONDS);
  });

  test('it is asked for its health where it answers, from outside of its own loopback', () => {
    const { http } = configured(data['config.yaml'], { [`/run/secrets/kafka-clickhouse-rx/clickhouse-password`]: 'x' });
    expect(http?.listen).toMatch(/^0\.0\.0\.0:/);
    expect(container.livenessProbe.httpGet).toEqual({ path: '/livez', port: 'http' });
    expect(container.readinessProbe.httpGet).toEqual({ path: '/readyz', port: 'http' });
  });

  test('it runs as nobody of rights, with nothing to write to', () => {
    expect(spec.securityContext.runAsNonRoot).toBe(true);
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    });
  });

  test('a drain of a node takes one process at a time', () => {
    expect(ofKind<{ spec: { maxUnavailable: number } }>('PodDisruptionBudget').spec.maxUnavailable).toBe(1);
  });

  test('the image is of this version', () => {
    expect(container.image).toBe(`kafka-clickhouse-rx:${packageJson.version}`);
  });
});

describe('compose', () => {
  test('the configuration is one that the program takes, and Prometheus may ask it by its name', () => {
    const { http } = configured(read('deploy/compose/config.yaml'));
    const { scrape_configs } = parse(read('deploy/compose/prometheus.yml')) as {
      scrape_configs: { static_configs: { targets: string[] }[] }[];
    };
    const [name, port] = scrape_configs[0]!.static_configs[0]!.targets[0]!.split(':');
    expect(http?.allowedHosts).toContain(name);
    expect(http?.listen).toBe(`0.0.0.0:${port}`);
  });

  test('a process that drains is not killed, and writes nowhere', () => {
    expect(Number.parseInt(ingest!.stop_grace_period, 10)).toBeGreaterThan(DRAIN_SECONDS);
    expect(ingest!.read_only).toBe(true);
  });

  test('every file that is mounted is there', () => {
    const { services } = parse(read('deploy/compose/compose.yaml')) as { services: Record<string, Partial<Service>> };
    const mounted = Object.values(services).flatMap(({ volumes = [] }) =>
      volumes.map((each) => each.split(':')[0]!).filter((path) => path.startsWith('.')),
    );
    expect(mounted.length).toBeGreaterThan(5);
    expect(mounted.filter((path) => !existsSync(new URL(path, new URL('deploy/compose/', root))))).toEqual([]);
  });
});

test('the image starts the program itself, as process 1 and without rights', () => {
  const lines = read('deploy/Dockerfile').split('\n');
  const last = (word: string): string => lines.findLast((line) => line.startsWith(`${word} `))!.slice(word.length + 1);
  expect(JSON.parse(last('ENTRYPOINT'))).toEqual(['node', `/app/${packageJson.bin['kafka-clickhouse-rx']}`]);
  expect(Number(last('USER'))).toBeGreaterThan(0);
  expect(JSON.parse(last('CMD'))).toEqual(ofKind<Deployment>('Deployment').spec.template.spec.containers[0]!.args);
});

test('systemd waits for a drain, and does not start a wrong configuration again and again', () => {
  const unit = read('deploy/systemd/kafka-clickhouse-rx.service');
  expect(Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)![1])).toBeGreaterThan(DRAIN_SECONDS);
  expect(unit).toMatch(/^RestartPreventExitStatus=2$/m);
});

test('the license is the canonical text of the Apache License, letter by letter', () => {
  const hash = createHash('sha256').update(read('LICENSE')).digest('hex');
  expect(hash).toBe('cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30');
});

describe('the package', () => {
  const packed = JSON.parse(
    execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root, encoding: 'utf8' }),
  ) as [{ files: { path: string }[] }];
  const paths = packed[0].files.map(({ path }) => path);

  test('has what is needed to run, to configure, to deploy and to read, and nothing else', () => {
    const kinds = [
      ...new Set(paths.map((path) => /^(?:dist\/(?:src|operators)|docs|deploy|examples)\//.exec(path)?.[0] ?? path)),
    ];
    expect(kinds.filter((kind) => !kind.startsWith('dist/')).sort()).toEqual([
      'CHANGELOG.md',
      'CONTRIBUTING.md',
      'LICENSE',
      'README.md',
      'bench/RESULTS.md',
      'bench/chart.svg',
      'config.schema.json',
      'deploy/',
      'docs/',
      'examples/',
      'package.json',
    ]);
  });

  test('every link of the README leads to something in it, or out of it by a whole address', () => {
    const links = [...read('README.md').matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)].map(([, link]) => link!);
    const inside = links.filter((link) => !/^https?:/.test(link));
    expect(inside.length).toBeGreaterThan(3);
    expect(inside.filter((link) => !paths.includes(link))).toEqual([]);
  });
});
