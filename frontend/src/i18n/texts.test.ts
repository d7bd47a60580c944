import { describe, expect, it } from 'vitest';
import { codes } from '../api/errors';
import { de } from './de';
import { en } from './en';

interface Tree {
  [key: string]: string | Tree;
}

/** Every text by its key, such as vm.state.running. */
function flat(tree: Tree, above = ''): Map<string, string> {
  const out = new Map<string, string>();
  for (const [key, value] of Object.entries(tree)) {
    if (typeof value === 'string') out.set(above + key, value);
    else for (const [k, v] of flat(value, `${above}${key}.`)) out.set(k, v);
  }
  return out;
}

const english = flat(en);
const german = flat(de);
const places = (text: string) => [...text.matchAll(/{{(\w+)}}/g)].map((m) => m[1]).sort();

describe('texts', () => {
  it('are the same keys in every language', () => {
    expect([...german.keys()].sort()).toEqual([...english.keys()].sort());
  });

  it('are never empty', () => {
    for (const [key, text] of [...english, ...german]) expect(text.trim(), key).not.toBe('');
  });

  it('have the same places to fill in', () => {
    for (const [key, text] of english) {
      expect(places(german.get(key) ?? ''), key).toEqual(places(text));
    }
  });

  it('have one and many wherever they count', () => {
    for (const key of english.keys()) {
      if (key.endsWith('_one')) expect(english.has(key.replace(/_one$/, '_other')), key).toBe(true);
    }
  });

  it('say what to do about every error the API knows', () => {
    for (const code of codes) {
      expect(english.has(`error.${code}.title`), code).toBe(true);
      expect(english.has(`error.${code}.hint`), code).toBe(true);
    }
  });
});
