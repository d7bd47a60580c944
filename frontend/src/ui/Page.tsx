import { useEffect } from 'react';
import type { ReactNode } from 'react';
import classes from './ui.module.css';

interface Props {
  title: string;
  /** Beside the title: states, badges. */
  mark?: ReactNode;
  above?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}

/** A screen: its heading, what can be done, and the rest. */
export function Page({ title, mark, above, actions, children }: Props) {
  useEffect(() => {
    document.title = `${title} · Drystone`;
  }, [title]);
  return (
    <main className={classes.page}>
      {above}
      <header className={classes.pageHead}>
        <h1 title={title}>{title}</h1>
        {mark}
        <div className={classes.actions}>{actions}</div>
      </header>
      {children}
    </main>
  );
}
