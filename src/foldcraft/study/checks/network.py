"""Is the net what the loss and the batch take it for?"""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from foldcraft.models import finetune
from foldcraft.models.backbones import head_names
from foldcraft.models.inputs import Inputs, forward
from foldcraft.study.checks.result import CheckResult, not_applicable, noted, verdict
from foldcraft.study.checks.subject import Subject
from foldcraft.training.losses import TrainingLoss, training_loss

FEW_IMAGES = 4
ON_SIMPLEX = 5e-3  # how far from one a row of probabilities may add up to, in 16 bits too
LEAK = 1e-6  # share of an image's own gradient; rounding leaves less


def _prepared(subject: Subject) -> torch.Tensor:
    member = subject.fresh
    return member.preparation(member.images.at(subject.some_rows(FEW_IMAGES)))


def _saved(subject: Subject) -> nn.Module:
    """A copy of the saved net in evaluation mode; whether it comes in that mode is another check's question."""
    return copy.deepcopy(subject.short_run.model.model).eval()


def logits(subject: Subject) -> CheckResult:
    """What the net gives is no probabilities: the loss takes logits, and takes the softmax itself."""
    images = _prepared(subject)
    nets = {"saved": _saved(subject)}
    if subject.trains:
        nets["trained"] = subject.trainer(subject.as_is, machine={"workers": 0}).bare_model.eval()
    with torch.no_grad():
        outputs = {name: forward(net, Inputs(images)) for name, net in nets.items()}
    space = subject.competition.target.learned_space
    low, high = min(float(o.min()) for o in outputs.values()), max(float(o.max()) for o in outputs.values())
    if space.form == "values":
        return not_applicable(f"outputs from {low:.3g} to {high:.3g}; values may be anything")
    if space.form == "labels":
        number = f"outputs from {low:.3g} to {high:.3g}"
        turned = {name: _with_turned_head(net, images) for name, net in nets.items()}
        inside = [name for name, out in outputs.items() if _are_shares(out) and _are_shares(turned[name])]
        return verdict(not inside, number, "take the sigmoid out of the net: the loss has its own")
    off = {name: max(_off_one(out[:, own]) for own in space.slices) for name, out in outputs.items()}
    squashed = [name for name, out in outputs.items() if off[name] < ON_SIMPLEX and float(out.min()) >= 0]
    sums = min(off.values())
    number = f"outputs from {low:.3g} to {high:.3g}; an image's add up to 1 but for {sums:.2g} at the nearest"
    return verdict(not squashed, number, "take the softmax out of the net: the loss has its own", off=sums)


def _are_shares(outputs: torch.Tensor) -> bool:
    return float(outputs.min()) >= 0 and float(outputs.max()) <= 1


def _with_turned_head(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What a net puts out once the signs of its head are turned: what were log-odds above 0 are then below."""
    turned = copy.deepcopy(net)
    with torch.no_grad():
        for name in _heads_of(turned):
            for value in turned.get_submodule(name).parameters():
                value.neg_()
        return forward(turned, Inputs(images))


def _heads_of(model: nn.Module) -> list[str]:
    return ["head"] if hasattr(model, "columns") else head_names(model)


def _off_one(outputs: torch.Tensor) -> float:
    return float((outputs.sum(1) - 1).abs().max())


def leaks(subject: Subject) -> CheckResult:
    """The loss of one image does not depend on another image of the batch."""
    images = _prepared(subject)
    target, rows = subject.competition.target, subject.some_rows(FEW_IMAGES)
    truth = target.learned[rows]
    targets = torch.from_numpy(truth if truth.ndim == 1 else target.learned_space.matrix(truth)).to(images.device)
    loss = training_loss(target.learned_space, truth, "none", 0.0, str(images.device))
    when = {"when judged": _leak(_saved(subject), images, targets, loss)}
    why = ""
    if subject.trains:
        trainer = subject.trainer(subject.as_is, machine={"workers": 0})
        net = trainer.bare_model
        when["of the net that is trained, when judged"] = _leak(net.eval(), images, targets, loss)
        finetune.train_mode(net, trainer.config.finetune)
        learned = _leak(net, images, targets, loss)
        if any(isinstance(module, _BatchNorm) and module.training for module in net.modules()):
            why = f"; {learned:.1g} in training, by BatchNorm's statistics, as finetune.batchnorm=train wants"
        else:
            when["in training"] = learned
    worst = max(when, key=lambda name: when[name])
    number = f"{when[worst]:.1g} of its own gradient reaches another image {worst} (wanted: 0){why}"
    hint = "look for view or reshape where permute or transpose is meant"
    return verdict(when[worst] <= LEAK, number, hint, **{name.replace(" ", "_"): value for name, value in when.items()})


def _leak(net: nn.Module, images: torch.Tensor, targets: torch.Tensor, loss: TrainingLoss) -> float:
    """The largest gradient that one image's loss has in other images, over the largest in its own."""
    torch.manual_seed(0)
    seen = images.clone().requires_grad_()
    one = len(images) // 2
    own_loss = loss(forward(net, Inputs(seen))[one : one + 1], targets[one : one + 1])
    (gradient,) = torch.autograd.grad(own_loss, seen)
    size = gradient.abs().flatten(1).amax(1)
    own = float(size[one])
    others = float(torch.cat([size[:one], size[one + 1 :]]).max())
    return others / own if own else float("inf")


def bias(subject: Subject) -> CheckResult:
    """The head has a bias."""
    model = subject.short_run.model.model
    heads = _heads_of(model)
    lacking = [name for name in heads if getattr(model.get_submodule(name), "bias", None) is None]
    number = f"no bias in {', '.join(lacking)}" if lacking else f"bias in {', '.join(heads)}"
    return verdict(not lacking, number, "give the classifier a bias, or choose another backbone", lacking=len(lacking))


def idle_bias(subject: Subject) -> CheckResult:
    """No convolution has a bias that the BatchNorm after it takes away again."""
    model, outputs, idle = _saved(subject), {}, []

    def remember(module: nn.Module, _: object, output: torch.Tensor) -> None:
        if getattr(module, "bias", None) is not None:
            outputs[id(output)] = (output, names[module])  # the output is kept, so that its id stays its own

    def look(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if id(inputs[0]) in outputs:
            idle.append(outputs[id(inputs[0])][1])

    names = {module: name for name, module in model.named_modules()}
    hooks = []
    for module in names:
        if isinstance(module, nn.Conv2d | nn.Linear):
            hooks.append(module.register_forward_hook(remember))
        if isinstance(module, _BatchNorm):
            hooks.append(module.register_forward_pre_hook(look))
    prepared = subject.fresh.preparation(subject.fresh.images.at([0, 1]))
    with torch.no_grad():
        forward(model, Inputs(prepared))
    for hook in hooks:
        hook.remove()
    number = f"{len(idle)} layers have a bias right before a BatchNorm" + (f": {idle[0]}" if idle else "")
    return noted(
        not idle, number, "harmless in pretrained nets; in one of your own write bias=False there", count=len(idle)
    )
