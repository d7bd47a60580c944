// The layering of the web app: a feature never imports another one, the charts and
// the small pieces know nothing of the cluster, and only the doors touch the
// network and Wails.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..', 'src');

function sources(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true, recursive: true })
    .filter((e) => e.isFile() && /\.tsx?$/.test(e.name) && !e.name.includes('.test.'))
    .map((e) => relative(root, join(e.parentPath, e.name)));
}

/** What a file imports of ours, as paths below src. */
function imports(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  return [...text.matchAll(/from '(\.[^']+)'/g)].map((m) =>
    normalize(join(dirname(file), m[1] ?? '')),
  );
}

const part = (path: string) => path.split('/').slice(0, 2).join('/');
const files = sources(root);

describe('imports', () => {
  it('finds the sources', () => {
    expect(files.length).toBeGreaterThan(50);
  });

  it('keeps features apart', () => {
    const wrong = files
      .filter((f) => f.startsWith('features/'))
      .flatMap((f) =>
        imports(f)
          .filter((i) => i.startsWith('features/') && part(i) !== part(f))
          .map((i) => `${f} -> ${i}`),
      );
    expect(wrong).toEqual([]);
  });

  it('keeps the cluster out of charts and ui', () => {
    const wrong = files
      .filter((f) => f.startsWith('charts/') || f.startsWith('ui/'))
      .flatMap((f) =>
        imports(f)
          .filter((i) => /^(api|features|app|platform|parts)\//.test(i))
          .map((i) => `${f} -> ${i}`),
      );
    expect(wrong).toEqual([]);
  });

  it('leaves Wails to platform', () => {
    const wrong = files.filter(
      (f) =>
        !f.startsWith('platform/') && readFileSync(join(root, f), 'utf8').includes('window.go'),
    );
    expect(wrong).toEqual([]);
  });
});
