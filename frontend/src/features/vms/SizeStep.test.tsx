import { MantineProvider } from '@mantine/core';
import { fireEvent, render, screen } from '@testing-library/react';
import { useState } from 'react';
import { beforeAll, describe, expect, it } from 'vitest';
import { startI18n } from '../../i18n';
import { SizeStep } from './CreateSteps';
import { complete, emptyDraft } from './draft';

/** The first step as the wizard has it: Next only when it is filled in. */
function Step() {
  const [draft, setDraft] = useState(emptyDraft);
  return (
    <MantineProvider>
      <SizeStep draft={draft} change={(part) => setDraft((d) => ({ ...d, ...part }))} />
      <button disabled={!complete(draft, 0)}>Next</button>
    </MantineProvider>
  );
}

beforeAll(() => startI18n('en'));

describe('the first step of the wizard', () => {
  const next = () => screen.getByRole<HTMLButtonElement>('button', { name: 'Next' });
  const name = () => screen.getByRole('textbox', { name: 'Name' });
  const type = (text: string) => fireEvent.change(name(), { target: { value: text } });

  it('neither goes on nor scolds before anything is typed', () => {
    render(<Step />);
    expect(next().disabled).toBe(true);
    expect(name().getAttribute('aria-invalid')).not.toBe('true');
  });

  it('says what is wrong with a name, and stops saying it', () => {
    render(<Step />);
    type('my machine');
    screen.getByText(/Only letters, digits/);
    expect(name().getAttribute('aria-invalid')).toBe('true');
    expect(next().disabled).toBe(true);
    type('a'.repeat(64));
    screen.getByText(/At most 63 characters/);
    type('my-machine');
    expect(screen.queryByText(/Only letters|At most/)).toBeNull();
    expect(next().disabled).toBe(false);
  });
});
