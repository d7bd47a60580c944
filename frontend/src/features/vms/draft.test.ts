import { describe, expect, it } from 'vitest';
import { commandOf, complete, emptyDraft, nameProblem, specOf } from './draft';
import type { Draft } from './draft';

const GiB = 2 ** 30;
const draft = (part: Partial<Draft>): Draft => ({ ...emptyDraft, name: 'web-1', ...part });
const kernel = new File(['k'], 'vmlinuz');
const ref = { name: 'vmlinuz', sha256: 'ab'.repeat(32), size_bytes: 1 };

describe('nameProblem', () => {
  it.each([
    ['', 'empty'],
    ['a', undefined],
    ['Web_1.eu-central', undefined],
    ['9lives', undefined],
    ['-web', 'letters'],
    ['.web', 'letters'],
    ['web 1', 'letters'],
    ['wéb', 'letters'],
    ['web/1', 'letters'],
    ['web\n', 'letters'],
    ['a'.repeat(63), undefined],
    ['a'.repeat(64), 'long'],
  ] as const)('of %j', (name, want) => {
    expect(nameProblem(name)).toBe(want);
  });
});

describe('complete', () => {
  it('wants a good name, a CPU and enough memory first', () => {
    expect(complete(draft({}), 0)).toBe(true);
    expect(complete(draft({ name: 'a b' }), 0)).toBe(false);
    expect(complete(draft({ cpus: 0 }), 0)).toBe(false);
    expect(complete(draft({ memory: 2 ** 20 }), 0)).toBe(false);
  });

  it('wants to know which image', () => {
    expect(complete(draft({ disk: { kind: 'image', image: '' } }), 1)).toBe(false);
    expect(complete(draft({ disk: { kind: 'image', image: 'debian' } }), 1)).toBe(true);
    expect(complete(draft({ disk: { kind: 'none' } }), 1)).toBe(true);
  });

  it('wants something to start from', () => {
    expect(complete(draft({ disk: { kind: 'none' } }), 2)).toBe(false);
    expect(complete(draft({ boot: { kind: 'kernel', append: '' } }), 2)).toBe(false);
    const boot = { kind: 'kernel', append: '', kernel } as const;
    expect(complete(draft({ disk: { kind: 'none' }, boot }), 2)).toBe(true);
  });
});

describe('specOf', () => {
  it('asks for what was chosen and for nothing else', () => {
    expect(specOf(draft({ disk: { kind: 'new', bytes: GiB } }))).toEqual({
      name: 'web-1',
      cpus: 2,
      memory_bytes: 2 * GiB,
      disks: [{ size_bytes: GiB }],
    });
    expect(specOf(draft({ firmware: 'uefi-secure' })).firmware).toBe('uefi-secure');
    const boot = { kind: 'kernel', append: 'console=ttyS0', kernel } as const;
    expect(specOf(draft({ disk: { kind: 'none' }, boot }), ref)).toEqual({
      name: 'web-1',
      cpus: 2,
      memory_bytes: 2 * GiB,
      disks: [],
      boot: { kernel: ref, append: 'console=ttyS0' },
    });
  });
});

describe('commandOf', () => {
  it('is what one would type for the same', () => {
    expect(commandOf(draft({}))).toBe(
      'drystone vm create web-1 --cpus 2 --memory 2G --disk 20G && drystone vm start web-1',
    );
    expect(commandOf(draft({ firmware: 'uefi', start: false }))).toBe(
      'drystone vm create web-1 --cpus 2 --memory 2G --disk 20G --firmware uefi',
    );
    const boot = { kind: 'kernel', append: "quiet root='a b'", kernel } as const;
    expect(commandOf(draft({ start: false, disk: { kind: 'none' }, boot }))).toBe(
      'drystone vm create web-1 --cpus 2 --memory 2G --kernel vmlinuz ' +
        "--append 'quiet root='\\''a b'\\'''",
    );
  });
});
