import { useTranslation } from 'react-i18next';
import { useConnection, useLink } from '../api/context';
import { useFormat } from '../i18n/format';
import classes from './Shell.module.css';

/** Whether what is on screen is live, and if not, from when it is. */
export function LinkMark() {
  const { t } = useTranslation();
  const format = useFormat();
  const connection = useConnection();
  const link = useLink();
  const since = connection.lastContact;
  const old = since === undefined ? t('link.down') : t('stale.asOf', { time: format.time(since) });
  return (
    <div className={classes.live} data-link={link} role="status">
      <i aria-hidden="true" />
      {link === 'open' ? t('link.live') : old}
    </div>
  );
}
