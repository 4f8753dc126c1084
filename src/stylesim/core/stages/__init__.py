"""Run long work in stages: folders of parquet parts that can be interrupted and continued."""
