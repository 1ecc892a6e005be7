"""What loads the proxies and stands behind them. None of it is measured."""
