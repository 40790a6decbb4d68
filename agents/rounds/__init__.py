"""The rounds that train an agent in its own dream, and the stages that they are made of.

Every stage is a function of one dataclass: its settings (what is learnt, such as `VAESettings`)
joined with its places (where it runs: folders, seed, workers, device), such as `VAETraining`.
`recast` makes one of the other:

    from agents.rounds.vision import VAESettings, VAETraining, train_vae
    from generative.training.settings import recast

    settings = VAESettings(steps=2000)
    model = train_vae(recast(VAETraining, settings, rollouts=(episodes,), out=Path("runs/vae")))

A stage returns the folder of what it made. Called again it goes on, or finds that it is done.
`recording`, `own_episodes`, `vision`, `encoding`, `memory` and `controller` hold the stages, `play`
the rounds. Importing any of them loads no torch.
"""
