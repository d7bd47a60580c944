import type { ReactNode } from 'react';
import classes from './ui.module.css';

export type Tone = 'ok' | 'warn' | 'bad' | 'info' | 'dim';

interface Props {
  tone: Tone;
  icon: ReactNode;
  children: ReactNode;
  title?: string | undefined;
  /** Marks the element for tests: what it says, independent of language. */
  state?: string;
}

/** A state: icon and text, so that colour is never alone. */
export function Mark({ tone, icon, children, title, state }: Props) {
  return (
    <span className={classes.mark} data-tone={tone} data-state={state} title={title}>
      {icon}
      <span>{children}</span>
    </span>
  );
}
